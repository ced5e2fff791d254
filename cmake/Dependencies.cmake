# What the launcher installed (dependencies.txt pins it) is found under ESPALIER_DEPS; a LibTorch of the user's own wins through
# Torch_DIR or CMAKE_PREFIX_PATH, as with any CMake project.
if(NOT ESPALIER_DEPS)
  set(ESPALIER_DEPS $ENV{ESPALIER_DEPS_DIR} CACHE PATH "folder that the launcher's set-up filled")
endif()
if(NOT ESPALIER_DEPS)
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/espalier deps-dir OUTPUT_VARIABLE deps OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(ESPALIER_DEPS ${deps} CACHE PATH "folder that the launcher's set-up filled" FORCE)
endif()
set(ESPALIER_SITE ${ESPALIER_DEPS}/site)  # Python packages that carry C++ libraries, unpacked

if(NOT Torch_DIR AND NOT DEFINED ENV{Torch_DIR})
  find_package(Torch QUIET CONFIG)  # CMAKE_PREFIX_PATH
endif()
if(NOT Torch_FOUND)
  if(NOT Torch_DIR)
    if(DEFINED ENV{Torch_DIR})
      set(Torch_DIR $ENV{Torch_DIR} CACHE PATH "" FORCE)
    else()
      set(Torch_DIR ${ESPALIER_SITE}/torch/share/cmake/Torch CACHE PATH "" FORCE)
    endif()
  endif()
  if(NOT EXISTS ${Torch_DIR}/TorchConfig.cmake)
    message(FATAL_ERROR "LibTorch is not at ${Torch_DIR}. Run `./espalier build` once (it installs the CPU build), or give -DTorch_DIR=…")
  endif()
endif()
get_filename_component(ESPALIER_TORCH_ROOT ${Torch_DIR}/../../.. ABSOLUTE)

# LibTorch's own package pulls its flags and CUDA look-ups into every target; two imported targets are all that is needed. Its
# headers come last, as SYSTEM, so that the system's fmt is found before the copy that they carry.
file(STRINGS ${ESPALIER_TORCH_ROOT}/include/torch/headeronly/version.h torch_version REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
if(NOT torch_version)
  file(STRINGS ${ESPALIER_TORCH_ROOT}/include/torch/version.h torch_version REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
endif()
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" ESPALIER_TORCH_MAJOR_MINOR "${torch_version}")
set(ESPALIER_CXX_ABI "cxx11-gnu")
add_library(espalier_torch INTERFACE)
target_include_directories(espalier_torch SYSTEM INTERFACE ${ESPALIER_TORCH_ROOT}/include ${ESPALIER_TORCH_ROOT}/include/torch/csrc/api/include)
target_link_options(espalier_torch INTERFACE -L${ESPALIER_TORCH_ROOT}/lib)
target_link_libraries(espalier_torch INTERFACE -ltorch_cpu -lc10)
target_compile_options(espalier_torch INTERFACE -Wno-unused-parameter)

# The OpenMP library that LibTorch brings, whatever it is called there; the compiler's where it brings none.
file(GLOB gomp RELATIVE ${ESPALIER_TORCH_ROOT}/lib ${ESPALIER_TORCH_ROOT}/lib/libgomp*.so*)
set(ESPALIER_OPENMP -lgomp)
if(gomp)
  list(GET gomp 0 gomp)
  set(ESPALIER_OPENMP -l:${gomp})
endif()

foreach(needed onnx/onnx-ml.proto openvino/include)
  if(NOT EXISTS ${ESPALIER_SITE}/${needed})
    message(FATAL_ERROR "${ESPALIER_SITE}/${needed} is missing. Run `./espalier setup` once, or name its folder with -DESPALIER_DEPS=…")
  endif()
endforeach()

find_package(Boost 1.81 REQUIRED)                 # Boost.DLL, header only
find_package(TBB REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(SQLite3 REQUIRED)
find_package(Protobuf REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED)
find_package(ICU 72 REQUIRED COMPONENTS uc)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
find_path(TOMLPLUSPLUS_INCLUDE toml++/toml.h REQUIRED)
set(ESPALIER_ONNX_PROTO ${ESPALIER_SITE}/onnx/onnx-ml.proto)
set(ESPALIER_OPENVINO ${ESPALIER_SITE}/openvino)

# The wheel carries ONNX Runtime's library and no headers; those come from a package of headers, of an older version: the C API only
# ever grows, and the version asked for at run time is the headers' (ORT_API_VERSION).
set(ESPALIER_ONNXRUNTIME ${ESPALIER_SITE}/onnxruntime/capi CACHE PATH "folder of libonnxruntime.so.1")
set(ESPALIER_ONNXRUNTIME_HEADERS ${ESPALIER_DEPS}/headers/usr/include CACHE PATH "folder of onnxruntime/onnxruntime_c_api.h")
file(GLOB ESPALIER_ONNXRUNTIME_LIBRARY ${ESPALIER_ONNXRUNTIME}/libonnxruntime.so.1)
if(NOT ESPALIER_ONNXRUNTIME_LIBRARY)
  message(FATAL_ERROR "ONNX Runtime's library is not in ${ESPALIER_ONNXRUNTIME}. Run `./espalier setup` once, or give -DESPALIER_ONNXRUNTIME=…")
endif()
find_path(ESPALIER_ONNXRUNTIME_INCLUDE onnxruntime_c_api.h NO_DEFAULT_PATH
  PATHS ${ESPALIER_ONNXRUNTIME_HEADERS}/onnxruntime ${ESPALIER_ONNXRUNTIME_HEADERS}/onnxruntime/core/session ${ESPALIER_ONNXRUNTIME_HEADERS})
if(NOT ESPALIER_ONNXRUNTIME_INCLUDE)
  message(FATAL_ERROR "ONNX Runtime's headers are not under ${ESPALIER_ONNXRUNTIME_HEADERS}. Run `./espalier setup` once, or give -DESPALIER_ONNXRUNTIME_HEADERS=…")
endif()

# Where executables (and through them, plugins) find the runtimes.
set(ESPALIER_RPATH "$ORIGIN/../lib:${ESPALIER_TORCH_ROOT}/lib:${ESPALIER_OPENVINO}/libs:${ESPALIER_ONNXRUNTIME}")
