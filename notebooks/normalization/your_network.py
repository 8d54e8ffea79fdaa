# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     notebook_metadata_filter: -jupytext.text_representation
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own network
#
# What does weight decay do in *your* network? The file `workflow/effective_lr/monitor.py` answers that. It needs
# PyTorch alone: copy it beside your script. Here it watches a ResNet-18 and a small GPT. `scale_groups` finds by trial
# which weights can be rescaled without a change of the function. `Monitor` measures their norms and angles in training,
# and predicts where both settle. `weight_decay` is PyTorch's, $2\lambda$ for the penalty $\lambda\lVert w\rVert^2$.

# %% tags=["parameters"]
tensors = "results/data/fashion-mnist-14.pt"  # `snakemake results/data/fashion-mnist-14.pt --cores 1` prepares it
record = "results/data/fashion-mnist-14.json"  # their checksum
steps = 250  # of each training

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch.nn import functional as F
from torchvision.models import resnet18

from effective_lr.document.style import PALETTE, start
from effective_lr.engine import grid
from effective_lr.engine.study import load
from effective_lr.monitor import Monitor, scale_groups
from effective_lr.prepare.dataset import load as load_tensors
from effective_lr.studies.manifold.networks import GPT, loss

start()
# The package draws for files; from here on figures appear below their cells.
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"
torch.set_num_threads(1)
torch.manual_seed(0)


def watch(model, optimizer, inputs, losses):
    """The monitor's report on the last third of a training."""
    monitor = Monitor(model, optimizer, scale_groups(model, inputs), every=2)  # for so few steps; 50 is the default
    for step, value in enumerate(losses):
        if step == 2 * steps // 3:
            monitor.report()  # the next one is of what follows
        value.backward()
        optimizer.step()
        monitor.step()
        optimizer.zero_grad()
    return pd.DataFrame(monitor.report()).set_index("name")


# %% [markdown]
# ## A ResNet-18 by SGD with momentum, and a small GPT by AdamW
#
# Gains and biases of the ResNet have no weight decay, as is usual. At this rate it would shrink the gains to zero, and
# units without a gain have no gradient: after 750 steps the first five convolutions turn no more.
#
# The GPT learns the text of this repository's paper by bytes. Queries, keys and what enters a matrix are normalized.

# %%
data = load_tensors(Path(tensors), Path(record))
images, labels = data["train_images"][:2048].float(), data["train_labels"][:2048]
images = F.interpolate(images, size=33).expand(-1, 3, -1, -1)  # four pixels are left behind the strides of ResNet
resnet = resnet18(num_classes=10)
parts = [{"params": [p for p in resnet.parameters() if p.dim() == 1], "weight_decay": 0}]
parts += [{"params": [p for p in resnet.parameters() if p.dim() > 1], "weight_decay": 0.05}]
sgd = torch.optim.SGD(parts, lr=0.05, momentum=0.9)
batches = torch.randint(len(images), (steps, 16))
of_resnet = watch(resnet, sgd, images[:4], (F.cross_entropy(resnet(images[b]), labels[b]) for b in batches))
text = torch.tensor(list(b"".join(path.read_bytes() for path in sorted(Path("paper").glob("*/*.tex")))))
run = grid.load_scale(Path("config/manifold"), "laptop", load("manifold"))[1]["starts"][0]
gpt = GPT(run.changed(rms_norm="pre", vocabulary=256, initial_norm=1.0))
adamw = torch.optim.AdamW(gpt.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=1.0)
windows = text[torch.randint(len(text) - run.context, (steps, 8, 1)) + torch.arange(run.context + 1)]
of_gpt = watch(gpt, adamw, windows[0, :, :-1], (loss(gpt, window) for window in windows))
tables = pd.concat({"ResNet-18": of_resnet, "GPT": of_gpt}).query("weight_decay > 0")
tables.drop(columns=["sentence", "lr", "weight_decay"]).round(4)

# %% [markdown]
# ## The angle per step, layer by layer
#
# $\eta$, $\lambda$ and momentum fix it at equilibrium. A layer below its line has further to go.

# %%
is_scaled = tables["kind"] != "none"
shown = tables[is_scaled & ~tables.index.get_level_values(1).str.contains(r"\+")]
names = [name.replace(".weight", "").replace("downsample.0", "down") for _, name in shown.index]
names[-1] = "GPT: queries, keys"
figure, axis = plt.subplots(figsize=(7, 2.6))
axis.plot(names, shown["equilibrium_angle"], "_", color="black", markersize=14, label="at equilibrium, predicted")
axis.plot(names, shown["angle"], "o", color=PALETTE[0], label="measured")
axis.tick_params(axis="x", rotation=90)
axis.set(ylabel="angle per step (rad)", ylim=(0, None))
axis.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## Three answers
#
# **Which layers does weight decay regularize?** Those that are not scale invariant. **Which does it only speed up?**
# The scale invariant ones: it sets their learning rate, and nothing else.

# %%
for (network, name), sentence in tables.sort_values("kind")["sentence"].items():
    print(f"{network} {name}: {sentence}")

# %% [markdown]
# **How long must a schedule be for equilibrium to matter?** A few times the steps to half way. A shorter schedule ends
# before the start is forgotten, and weight decay acts on the learning rate less than in these predictions.

# %%
tables[is_scaled].groupby(level=0)["half_way"].agg(["min", "median", "max"])
