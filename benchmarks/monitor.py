"""CPU time of the training of a ResNet-18 with effective_lr/monitor.py, at its default, over that without.

PYTHONPATH=workflow python benchmarks/monitor.py
"""

import time

import torch
from torchvision.models import resnet18

from effective_lr.monitor import Monitor, scale_groups

torch.set_num_threads(1)
images, labels = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
for name, options in (("SGD", {"momentum": 0.9, "weight_decay": 5e-4}), ("AdamW", {})):
    model = resnet18(num_classes=10)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=1e-3, **options)
    monitor, seconds = Monitor(model, optimizer, scale_groups(model, images[:4])), 0.0
    start = time.process_time()
    for _ in range(4 * monitor.every):
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        before = time.process_time()
        monitor.step()
        seconds += time.process_time() - before
        optimizer.zero_grad()
    whole = time.process_time() - start
    print(f"{name}: {whole / (whole - seconds):.4f}")
