# Makes ggml's build one for NVIDIA GPUs, too, where CMAKE_TOOLCHAIN_FILE names this file and CUDA_PATH
# the compiler. Compute capability 8.0 to 12.0: machine code for each; a newer GPU compiles what it
# runs from the PTX of 10.0, since that of 12.0 is for 12.0 alone.
set(GGML_CUDA ON CACHE BOOL "")
set(GGML_CUDA_NCCL OFF CACHE BOOL "")
set(CMAKE_CUDA_COMPILER "$ENV{CUDA_PATH}/bin/nvcc")
set(CMAKE_CUDA_ARCHITECTURES "80-real;86-real;89-real;90-real;100;120-real" CACHE STRING "")
# The driver's library comes with the driver: here is an empty stand-in of it.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,--allow-shlib-undefined")
