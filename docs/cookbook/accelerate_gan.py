"""A class-conditional GAN with Hugging Face accelerate.

Two processes on a CPU: ``accelerate launch --cpu --num_processes 2 accelerate_gan.py``; one: ``python``.
"""

from functools import partial

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from small_gan import Discriminator, Generator, pictures, print_brightness
from torch.utils.data import DataLoader, TensorDataset

from gan_blocks import (
    ExponentialMovingAverage,
    NormalPrior,
    TopKSchedule,
    distributed_top_k,
    hinge_discriminator_loss,
    hinge_generator_loss,
)

batch, epochs = 32, 5  # batch: of each process
accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
set_seed(0)  # equal weights everywhere
data = DataLoader(TensorDataset(*pictures(640)), batch_size=batch, shuffle=True, drop_last=True)
adam, prior = partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.999)), NormalPrior(16)
plain_g, plain_d = Generator(), Discriminator()
adam_g, adam_d = adam(plain_g.parameters()), adam(plain_d.parameters())
generator, discriminator, adam_g, adam_d, data = accelerator.prepare(plain_g, plain_d, adam_g, adam_d, data)
average = ExponentialMovingAverage(plain_g, decay=0.95)
accelerator.register_for_checkpointing(average)  # saved and loaded with the rest by save_state and load_state
world = accelerator.num_processes
top_k = TopKSchedule(batch_size=world * batch, floor_share=0.5, gamma=0.9, decay_steps=10)
set_seed(accelerator.process_index)  # other latents in each process
for epoch in range(epochs):
    for number, (real_images, labels) in enumerate(data):
        with torch.no_grad():
            fake_images = plain_g(prior.sample(batch, device=labels.device), labels)
        real_logits, fake_logits = discriminator(torch.cat([real_images, fake_images]), labels.repeat(2)).chunk(2)
        loss_d = hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        adam_d.zero_grad()
        accelerator.backward(loss_d)
        adam_d.step()

        plain_d.requires_grad_(False)
        scores = plain_d(generator(prior.sample(batch, device=labels.device), labels), labels)
        plain_d.requires_grad_(True)
        (chosen,) = distributed_top_k([scores], top_k.k(steps=epoch * len(data) + number))
        each = hinge_generator_loss(fake_logits=scores, reduction="none")
        loss_g = world * each[chosen.mask].sum() / chosen.num_selected  # DDP divides by world
        adam_g.zero_grad()
        accelerator.backward(loss_g)
        adam_g.step()
        average.update(plain_g)
    accelerator.print(f"epoch {epoch}: loss_d {loss_d:.3f}, loss_g {loss_g:.3f}")

if accelerator.is_main_process:
    print_brightness(average, prior)
accelerator.end_training()
