// One library for every CPU: a function marked CLONES is compiled for three sets of instructions, and the system's loader picks one.
#pragma once

#define ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__gnu_linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
