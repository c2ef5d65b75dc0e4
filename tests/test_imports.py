"""What `import tidewarp` may cost: nothing that only some users need."""

import subprocess
import sys

HEAVY = ("click", "cryptography", "numpy", "plotly", "rich", "tidewarp.cli", "tidewarp.testing", "tidewarp.worlds")


def test_the_front_door_imports_no_heavy_package():
    """They are imported by the module, and at the moment, that needs them."""
    code = f"import sys, tidewarp; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_in_the_front_door():
    """`__all__` says what there is, and all of it is there."""
    import tidewarp

    assert all(hasattr(tidewarp, name) for name in tidewarp.__all__)
    assert {"open", "replay", "sources", "sinks", "Twin"} <= set(tidewarp.__all__)
