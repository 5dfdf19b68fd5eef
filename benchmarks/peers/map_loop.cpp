// The C++ peers: a struct per page, and a std::map or std::unordered_map for each of the two trees. Called by native.py.

#include <chrono>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

namespace {

enum class Place : uint8_t { nowhere, unstable, stable };

struct Page {
    uint64_t content;
    uint64_t checksum;
    bool seen;  // there is a checksum
    Place place;
};

struct Counters {
    int64_t shared, sharing, unshared;
};

template <class Tree>
void full_scan(std::vector<Page> &pages, Tree &stable, Counters &count) {
    Tree unstable;
    for (size_t number = 0; number < pages.size(); number++) {
        Page &page = pages[number];
        if (page.place == Place::stable)
            continue;
        if (page.place == Place::unstable) {
            page.place = Place::nowhere;
            count.unshared--;
        }
        if (!page.seen || page.checksum != page.content) {
            page.seen = true;
            page.checksum = page.content;
            continue;
        }
        if (stable.find(page.content) != stable.end()) {
            page.place = Place::stable;
            count.sharing++;
            continue;
        }
        auto [found, fresh] = unstable.try_emplace(page.content, number);
        if (fresh) {
            page.place = Place::unstable;
            count.unshared++;
            continue;
        }
        pages[found->second].place = page.place = Place::stable;
        unstable.erase(found);
        stable.emplace(page.content, number);
        count.unshared--;
        count.shared++;
        count.sharing++;
    }
}

template <class Tree>
void run(const uint64_t *contents, int64_t n_pages, int64_t n_scans, double *seconds, int64_t *counters) {
    std::vector<Page> pages(n_pages);
    for (int64_t page = 0; page < n_pages; page++)
        pages[page] = {contents[page], 0, false, Place::nowhere};
    Tree stable;
    Counters count{};
    for (int64_t scan = 0; scan < n_scans; scan++) {
        auto start = std::chrono::steady_clock::now();
        full_scan(pages, stable, count);
        seconds[scan] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        counters[3 * scan] = count.shared;
        counters[3 * scan + 1] = count.sharing;
        counters[3 * scan + 2] = count.unshared;
    }
}

}  // namespace

extern "C" void scans_map(const uint64_t *contents, int64_t n_pages, int64_t n_scans, double *seconds, int64_t *counters) {
    run<std::map<uint64_t, size_t>>(contents, n_pages, n_scans, seconds, counters);
}

extern "C" void scans_unordered_map(const uint64_t *contents, int64_t n_pages, int64_t n_scans, double *seconds,
                                    int64_t *counters) {
    run<std::unordered_map<uint64_t, size_t>>(contents, n_pages, n_scans, seconds, counters);
}
