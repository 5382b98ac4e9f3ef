"""A class-conditional GAN in a plain loop under DistributedDataParallel.

Two processes of one machine: ``torchrun --nproc-per-node 2 ddp_gan.py``.
"""

from functools import partial

import torch
import torch.distributed as dist
from small_gan import Discriminator, Generator, pictures, print_brightness
from torch.nn.parallel import DistributedDataParallel

from gan_blocks import (
    ExponentialMovingAverage,
    NormalPrior,
    TopKSchedule,
    distributed_top_k,
    hinge_discriminator_loss,
    hinge_generator_loss,
)

batch, steps = 16, 100  # of each process
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)  # equal weights everywhere
generator, discriminator, prior = Generator(), Discriminator(), NormalPrior(16)
ddp = partial(DistributedDataParallel, forward_sync_buffers=False)  # before torch 2.13: broadcast_buffers=False
ddp_g, ddp_d = ddp(generator), ddp(discriminator)
average = ExponentialMovingAverage(generator, decay=0.95) if rank == 0 else None
top_k = TopKSchedule(batch_size=world * batch, floor_share=0.5, gamma=0.9, decay_steps=10)
adam = partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.999))
adam_g, adam_d = adam(generator.parameters()), adam(discriminator.parameters())
torch.manual_seed(rank)  # other pictures and latents in each process
for step in range(steps):
    real_images, labels = pictures(batch)
    with torch.no_grad():
        fake_images = generator(prior.sample(batch), labels)
    real_logits, fake_logits = ddp_d(torch.cat([real_images, fake_images]), labels.repeat(2)).chunk(2)
    loss_d = hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
    adam_d.zero_grad()
    loss_d.backward()
    adam_d.step()

    discriminator.requires_grad_(False)
    scores = discriminator(ddp_g(prior.sample(batch), labels), labels)  # D itself, past DDP: it learns nothing here
    discriminator.requires_grad_(True)
    (chosen,) = distributed_top_k([scores], top_k.k(steps=step))  # the best of all processes
    each = hinge_generator_loss(fake_logits=scores, reduction="none")
    loss_g = world * each[chosen.mask].sum() / chosen.num_selected  # DDP divides by world
    adam_g.zero_grad()
    loss_g.backward()
    adam_g.step()
    if average:
        average.update(generator)
    if rank == 0 and step % 25 == 0:
        print(f"step {step}: loss_d {loss_d:.3f}, loss_g {loss_g:.3f}")

if average:
    print_brightness(average, prior)
dist.destroy_process_group()
