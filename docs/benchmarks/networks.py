"""Print the table of docs/networks.md: what networks cost and how far they look.

python docs/benchmarks/networks.py [NETWORK ...]   # rows as they are measured; all of them in a few minutes

A NETWORK is a name of `geoseg.networks.network_names()`, or the path or name of a bundle, whose trained weights then
decide its effective field.
"""

import sys
import warnings
from typing import Any

import torch

from geoseg.bundle import load_bundle
from geoseg.networks import build_network, default_encoder, load_segmenter, network_facts, network_names

ROWS: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"encoder": "tu-tf_efficientnet_lite2"}),
    ("unet-inception", {}),
    ("unet-inception", {"encoder": "tu-tf_efficientnet_lite2"}),
    ("unet-atrous", {}),
    ("unet-plain", {"filters": 16}),
    ("unet-plain", {"filters": 32}),
    ("unet-plain", {}),
    ("unet", {"encoder": "resnet18"}),
    ("unet", {"encoder": "resnet50"}),
    ("deeplabv3plus", {"encoder": "resnet50"}),
    ("unetplusplus", {"encoder": "resnet18"}),
    ("manet", {"encoder": "resnet18"}),
    ("linknet", {"encoder": "resnet18"}),
    ("fpn", {"encoder": "resnet18"}),
    ("pspnet", {"encoder": "resnet18"}),
    ("deeplabv3", {"encoder": "resnet18"}),
    ("pan", {"encoder": "resnet18"}),
    ("upernet", {"encoder": "resnet18"}),
    ("segformer", {"encoder": "mit_b0"}),
    ("dpt", {"encoder": "tu-vit_tiny_patch16_224"}),
]
HEADINGS = (
    *("network", "encoder", "options", "parameters, M", "GFLOP/Mpx"),
    *("field, px", "local, px", "effective, px", "stride, px", "halo, px"),
)


def row(name: str, options: dict[str, Any], network: torch.nn.Module, bands: int) -> str:
    facts = network_facts(network, bands)
    encoder = f"`{chosen}`" if (chosen := options.get("encoder") or default_encoder(name.split("`")[-1])) else ""
    reach = ["all" if px is None else str(px) for px in (facts.receptive_px, facts.local_px)]
    further = ", ".join(f"{key} {value}" for key, value in options.items() if key != "encoder")
    cells = [f"`{name}`", encoder, further]
    figures = [f"{facts.parameters / 1e6:.1f}", f"{facts.gflop_per_mpx:.0f}", *reach, str(facts.effective_px)]
    return " | ".join(["", *cells, *figures, str(facts.stride_px), str(facts.suggested_halo_px), ""]).strip()


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print("| " + " | ".join(HEADINGS) + " |")
    print("| --- | --- | ---" + " | ---:" * (len(HEADINGS) - 3) + " |")
    for name, options in ROWS:
        if not names or name in names:
            print(row(name, options, build_network(name, bands=3, classes=1, **options), 3), flush=True)
    for model in sorted(set(names) - set(network_names())):
        spec = (bundle := load_bundle(model)).spec
        print(
            row(
                f"{spec.name}`, trained `{spec.network}",
                spec.network_options,
                load_segmenter(bundle).network,
                len(spec.bands),
            )
        )


if __name__ == "__main__":
    main(sys.argv[1:])
