// Non-owning views of memory: a pointer and a size.
#pragma once

#include <cstddef>
#include <cstdint>

namespace corepress {

template <typename T>
class Span {
public:
    Span() = default;
    Span(T* data, int64_t size) : data_(data), size_(size) {}

    T* data() const { return data_; }
    int64_t size() const { return size_; }
    T* begin() const { return data_; }
    T* end() const { return data_ + size_; }
    T& operator[](int64_t index) const { return data_[index]; }

private:
    T* data_ = nullptr;
    int64_t size_ = 0;
};

// A row-major tensor seen as [outer, groups, run]: element (o, g, r) belongs to group g. Every choice of a channel
// axis, and the whole tensor as one group (outer = groups = 1), has this shape.
struct GroupLayout {
    int64_t outer = 1;
    int64_t groups = 1;
    int64_t run = 0;

    int64_t size() const { return outer * groups * run; }
    int64_t group_size() const { return outer * run; }
    int64_t row_length() const { return groups * run; }
    int64_t offset(int64_t outer_index, int64_t group) const { return (outer_index * groups + group) * run; }
};

// Calls body(group, offset, length) for every run, or part of one, that lies in [begin, end) of the flat tensor.
template <typename Body>
void for_each_run(const GroupLayout& layout, int64_t begin, int64_t end, Body&& body) {
    for (int64_t offset = begin; offset < end;) {
        const int64_t run_index = offset / layout.run;
        const int64_t run_end = (run_index + 1) * layout.run;
        const int64_t stop = run_end < end ? run_end : end;
        body(run_index % layout.groups, offset, stop - offset);
        offset = stop;
    }
}

}  // namespace corepress
