from pathlib import Path
def save_checkpoint(path, module, **metadata):
    import json
    from safetensors.torch import save_file
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, str(path), {k: v if isinstance(v,str) else json.dumps(v) for k,v in metadata.items()})
