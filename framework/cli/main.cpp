#include "sdk/fingerprint.h"

#include <cstdio>

int main() {
  std::puts("espalier " ESPALIER_VERSION);
  return 2;
}
