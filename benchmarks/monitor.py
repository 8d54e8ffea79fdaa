"""What effective_lr/monitor.py costs: the time of a training step with it over that without, at its default.

    PYTHONPATH=workflow python benchmarks/monitor.py

ResNet-18 on batches of 32 images of 32 × 32, by SGD with momentum and by AdamW, on one CPU thread. Both ways take turns
of as many steps as lie between two measurements; the ratio is the median over turns.
"""

import statistics
import time

import torch
from torchvision.models import resnet18

from effective_lr.monitor import Monitor, scale_groups

EVERY, TURNS = 50, 5


def main() -> None:
    torch.set_num_threads(1)
    images, labels = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
    for name, options in (("SGD", {"momentum": 0.9, "weight_decay": 5e-4}), ("AdamW", {})):
        model = resnet18(num_classes=10)
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=1e-3, **options)
        monitor = Monitor(model, optimizer, scale_groups(model, images[:4]), EVERY)
        ratios = []
        for _ in range(TURNS):
            seconds = []
            for is_watched in (False, True):
                start = time.perf_counter()
                for _ in range(EVERY):
                    torch.nn.functional.cross_entropy(model(images), labels).backward()
                    optimizer.step()
                    if is_watched:
                        monitor.step()
                    optimizer.zero_grad()
                seconds.append(time.perf_counter() - start)
            ratios.append(seconds[1] / seconds[0])
        print(f"{name}: {statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})")


if __name__ == "__main__":
    main()
