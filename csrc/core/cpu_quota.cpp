#include "core/cpu_quota.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <vector>

namespace corepress {
namespace {

bool contains(const std::string& list, const std::string& item) {
    return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

// Without the escapes that mountinfo has for white space: \040 is a space.
std::string unescaped(const std::string& text) {
    std::string result;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto is_octal = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
        if (text[i] == '\\' && is_octal(i + 1) && is_octal(i + 2) && is_octal(i + 3)) {
            result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
            i += 3;
        } else {
            result += text[i];
        }
    }
    return result;
}

// A mounted hierarchy of groups that have quotas, and the group in it whose folder is the mount point.
struct Hierarchy {
    bool unified = false;  // version 2
    std::string top, mount_point;
};

std::vector<Hierarchy> mounted(const std::string& root) {
    std::vector<Hierarchy> result;
    std::ifstream file(root + "/proc/self/mountinfo");
    for (std::string line; std::getline(file, line);) {
        std::istringstream fields(line);
        std::string skipped, top, mount_point, type, source, options;
        fields >> skipped >> skipped >> skipped >> top >> mount_point;
        while (fields >> skipped && skipped != "-") {
        }
        fields >> type >> source >> options;
        const bool unified = type == "cgroup2";
        if (unified || (type == "cgroup" && contains(options, "cpu"))) {
            result.push_back({unified, unescaped(top), unescaped(mount_point)});
        }
    }
    return result;
}

// This process's group in a hierarchy, "/..." or nothing.
std::string group_of_process(const std::string& root, bool unified) {
    std::ifstream file(root + "/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        if (unified ? line.compare(0, 2, "0:") == 0 && controllers.empty() : contains(controllers, "cpu")) {
            return line.substr(second + 1);
        }
    }
    return {};
}

// CPUs that a group's own quota allows; infinite without one.
double quota_of(const std::string& folder, bool unified) {
    double quota = 0, period = 0;
    if (unified) {
        std::ifstream(folder + "/cpu.max") >> quota >> period;  // "max 100000" is no number
    } else {
        std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;  // -1 without a quota
        std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    }
    return quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

}  // namespace

int cpu_quota(const std::string& root) {
    double least = HUGE_VAL;
    for (const Hierarchy& hierarchy : mounted(root)) {
        std::string group = group_of_process(root, hierarchy.unified);
        const std::string top = hierarchy.top == "/" ? "" : hierarchy.top;
        // A process that is not below what is mounted, as with namespaces, sees its own group there.
        group = group.compare(0, top.size(), top) == 0 ? group.substr(top.size()) : "";
        for (;;) {
            least = std::min(least, quota_of(root + hierarchy.mount_point + group, hierarchy.unified));
            if (group.empty()) break;
            group.resize(std::min(group.find_last_of('/'), group.size() - 1));
        }
    }
    constexpr double kMost = 1 << 16;
    return least > kMost ? 0 : std::max(1, static_cast<int>(std::ceil(least)));
}

}  // namespace corepress
