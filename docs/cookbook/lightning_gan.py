"""A class-conditional GAN as a PyTorch Lightning module: ``python lightning_gan.py``."""

from functools import partial

import lightning
import torch
from small_gan import Discriminator, Generator, pictures, print_brightness
from torch.utils.data import DataLoader, TensorDataset

from gan_blocks import (
    ExponentialMovingAverage,
    NormalPrior,
    TopKSchedule,
    cached_spectral_norm,
    hinge_discriminator_loss,
    hinge_generator_loss,
    select_top_k,
)


class GAN(lightning.LightningModule):
    def __init__(self, batch):
        super().__init__()
        self.automatic_optimization = False  # two networks that take turns
        self.generator, self.discriminator, self.prior = Generator(), Discriminator(), NormalPrior(16)
        self.average = ExponentialMovingAverage(self.generator, decay=0.95)
        self.averaged = self.average.module  # a submodule: moved to the device, saved and loaded with the others
        self.top_k = TopKSchedule(batch_size=batch, floor_share=0.5, gamma=0.9, decay_steps=10)

    def configure_optimizers(self):
        adam = partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.999))
        return adam(self.generator.parameters()), adam(self.discriminator.parameters())

    def generated(self, labels):
        return self.generator(self.prior.sample(len(labels), device=self.device), labels)

    def training_step(self, batch, _):
        (real_images, labels), (adam_g, adam_d) = batch, self.optimizers()
        self.toggle_optimizer(adam_d)
        with torch.no_grad():
            fake_images = self.generated(labels)
        with cached_spectral_norm(self.discriminator):  # one weight for both readings of D
            real_logits, fake_logits = (self.discriminator(images, labels) for images in (real_images, fake_images))
            loss_d = hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
            adam_d.zero_grad()
            self.manual_backward(loss_d)
        adam_d.step()
        self.untoggle_optimizer(adam_d)

        self.toggle_optimizer(adam_g)  # D gets no gradients here
        scores = self.discriminator(self.generated(labels), labels)
        k = self.top_k.k(steps=self.global_step // 2)  # Lightning counts the steps of both optimizers
        loss_g = hinge_generator_loss(fake_logits=select_top_k(scores, k))
        adam_g.zero_grad()
        self.manual_backward(loss_g)
        adam_g.step()
        self.untoggle_optimizer(adam_g)
        self.average.update(self.generator)
        self.log_dict({"loss_d": loss_d, "loss_g": loss_g}, prog_bar=True)


if __name__ == "__main__":
    lightning.seed_everything(0)
    gan = GAN(batch=32)
    data = DataLoader(TensorDataset(*pictures(640)), batch_size=32, shuffle=True, drop_last=True)
    trainer = lightning.Trainer(max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(gan, data)
    print_brightness(gan.average, gan.prior)
