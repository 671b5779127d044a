# Split the worker's lock: `-v torch=1` keeps torch and the CUDA libraries that its wheel needs,
# `-v torch=0` keeps the rest. triton (1 GB) is left out of both: only torch.compile uses it.
/^[^ ]/ { name = $1; sub(/==.*/, "", name); family = name ~ /^(torch|nvidia-.*|cuda-.*)$/ }
name != "triton" && family == torch
