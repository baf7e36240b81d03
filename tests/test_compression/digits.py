"""A small convolutional network on the handwritten digits that come with scikit-learn, for tests of any module."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from compression import PQConfig, Rule

RULES = (
    Rule(pattern="2|5", config=PQConfig(block_size=9, n_centroids=8), stage="kernels"),
    Rule(pattern="9|11", config=PQConfig(block_size=8, n_centroids=8), stage="dense"),
)
STAGES = ("kernels", "dense")


def digits():
    """Return 1497 training images with labels, and 300 to test on; pixels in 0..1, images (n, 1, 8, 8)."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
    labels = torch.tensor(labels)[order]
    return (images[:-300], labels[:-300]), (images[-300:], labels[-300:])


def network(seed: int = 0):
    """Return a convolutional network with random weights, batch normalisation and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.BatchNorm2d(1),
            nn.Dropout(0.1),
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )


def trained_network(images, labels, n_epochs: int = 6):
    """Return the network after some epochs, in evaluation mode; a second or so."""
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        for _ in range(n_epochs):
            for rows in torch.randperm(len(images), generator=generator).split(64):
                functional.cross_entropy(net(images[rows]), labels[rows]).backward()
                optimizer.step()
                optimizer.zero_grad()
    return net.eval()


@torch.inference_mode()
def accuracy(net, images, labels):
    """Return the share of the images whose largest output is their label's."""
    return (net.eval()(images).argmax(1) == labels).float().mean().item()
