// How many CPUs a container may use.
#pragma once

#include <string>

namespace corepress {

// The CPUs that the quotas of this process's control groups (versions 1 and 2) and of those around them allow, rounded
// up; 0 if there are none, or none that can be read. Files are looked for below `root`, which is "" but in tests.
int cpu_quota(const std::string& root);

}  // namespace corepress
