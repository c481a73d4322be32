// Memory that tasks of a parallel loop borrow and give back: as many objects as run at once, not one per task.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace corepress {

template <typename T>
class WorkspacePool {
public:
    class Lease {
    public:
        Lease(WorkspacePool& pool, std::unique_ptr<T> object) : pool_(pool), object_(std::move(object)) {}
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() { pool_.give_back(std::move(object_)); }
        T& operator*() const { return *object_; }
        T* operator->() const { return object_.get(); }

    private:
        WorkspacePool& pool_;
        std::unique_ptr<T> object_;
    };

    Lease borrow() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!free_.empty()) {
                std::unique_ptr<T> object = std::move(free_.back());
                free_.pop_back();
                return Lease(*this, std::move(object));
            }
        }
        return Lease(*this, std::make_unique<T>());
    }

    // Every object made so far; call when none is borrowed.
    std::vector<std::unique_ptr<T>>& objects() { return free_; }

private:
    void give_back(std::unique_ptr<T> object) {
        const std::lock_guard<std::mutex> lock(mutex_);
        free_.push_back(std::move(object));
    }

    std::mutex mutex_;
    std::vector<std::unique_ptr<T>> free_;
};

}  // namespace corepress
