// Matrix products of a warpgroup. They run when they are waited for; until then their accumulators hold NaN.
#include "async.h"
#include "engine.h"
#include "twins.h"

namespace simt {

namespace {

constexpr int M = 64, K = 16, GROUP = 128;

struct Product {
    const Site* site;
    float* d;
    int n;
    Operand a, b;
    bool add;
    bool operator==(const Product& o) const { return n == o.n && a == o.a && b == o.b && add == o.add; }
};
// What accumulators hold while products that write them run.
struct Held {
    float* d;
    int products;
    std::vector<float> values;
};
struct Queue {
    std::vector<Product> open;
    std::vector<std::vector<Product>> closed;
    std::vector<Held> held;
    bool fenced = false;
};

} // namespace

struct Products {
    Queue queues[THREADS];
    float a[M][K], b[K][256], d[M][256]; // of the product that runs
};
std::shared_ptr<Products> new_products() { return std::make_shared<Products>(); }

namespace {

Queue& queue_of(int thread) { return engine->products->queues[thread]; }

// Where element r, of m or n, and k of an operand lies. Lines of 128 bytes are in groups of 8, which follow each other
// at the stride; a turned operand goes on after 64 elements of its lines with the next block of lines.
char* element(Operand operand, int r, int k) {
    auto field = [&](int shift) { return static_cast<unsigned>(operand.word >> shift & 0x3fff) << 4; };
    unsigned row = static_cast<unsigned>(operand.turned ? k : r);
    unsigned column = static_cast<unsigned>(operand.turned ? r : k);
    unsigned block = operand.turned ? column / 64 * field(16) : 0;
    unsigned at = field(0) + block + row / 8 * field(32) + row % 8 * 128 + (operand.turned ? column % 64 : column) * 2;
    return engine->shared_range.low + (at ^ (at >> 7 & 7) << 4);
}

// Eight numbers in a line are 16 bytes in a row.
template <class F> void each_piece(Operand operand, int rows, F f) {
    int along_r = operand.turned ? 8 : 1, along_k = operand.turned ? 1 : 8;
    for (int r = 0; r < rows; r += along_r) {
        for (int k = 0; k < K; k += along_k) f(element(operand, r, k));
    }
}

void check_operand(const Site* site, Operand operand) {
    if (operand.word >> 62 != 1) {
        fail("%s at %s:%d: an operand that is not in 128-byte swizzle", site->what, site->file, site->line);
    }
    if (operand.word << 4 & 0x380 || (operand.turned && operand.word & 0x3f)) {
        fail("misaligned: %s at %s:%d takes operands whose groups of 8 rows are aligned to 1024 bytes", site->what,
             site->file, site->line);
    }
}

void mark_operands(const Product& p, bool on) {
    if (!engine->options.checked) return;
    each_piece(p.a, M, [&](char* at) { mark(at, 16, IN_USE, on); });
    each_piece(p.b, p.n, [&](char* at) { mark(at, 16, IN_USE, on); });
}

Held& hold(Queue& q, float* d, int n) {
    for (Held& h : q.held) {
        if (h.d == d) return h;
    }
    q.held.push_back(Held{d, 0, std::vector<float>(d, d + n / 2)});
    memset(d, 0xff, sizeof(float) * static_cast<size_t>(n) / 2);
    return q.held.back();
}

void let_go(Queue& q, float* d) {
    for (size_t i = 0; i < q.held.size(); i++) {
        Held& h = q.held[i];
        if (h.d != d || --h.products) continue;
        std::copy(h.values.begin(), h.values.end(), d);
        q.held.erase(q.held.begin() + static_cast<ptrdiff_t>(i));
        return;
    }
}

float bf16_at(const char* at) {
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    unsigned u = static_cast<unsigned>(bits) << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

// Product `index` of the oldest group of all 128 threads, the first of which is `first`.
void multiply(int first, size_t index) {
    const Product p = queue_of(first).closed.front()[index];
    auto& [queues, a, b, d] = *engine->products;
    for (int r = 0; r < M; r++) {
        for (int k = 0; k < K; k++) a[r][k] = bf16_at(element(p.a, r, k));
    }
    for (int c = 0; c < p.n; c++) {
        for (int k = 0; k < K; k++) b[k][c] = bf16_at(element(p.b, c, k));
    }
    auto each = [&](auto f) {
        for (int t = 0; t < GROUP; t++) {
            Queue& q = queue_of(first + t);
            float* own = hold(q, q.closed.front()[index].d, p.n).values.data();
            int lane = t & 31, row = t / 32 * 16 + lane / 4, column = lane % 4 * 2;
            for (int i = 0; i < p.n / 2; i++) f(own[i], d[row + 8 * (i >> 1 & 1)][8 * (i >> 2) + column + (i & 1)]);
        }
    };
    each([&](float& own, float& whole) { whole = p.add ? own : 0; });
    for (int r = 0; r < M; r++) {
        for (int k = 0; k < K; k++) {
            for (int c = 0; c < p.n; c++) d[r][c] += a[r][k] * b[k][c];
        }
    }
    each([&](float& own, float& whole) { own = whole; });
    for (int t = first; t < first + GROUP; t++) let_go(queue_of(t), queue_of(t).closed.front()[index].d);
}

struct Wait {
    const Site* site;
    int thread, most;
};

void land_groups(void** args) {
    const Wait& wait = *static_cast<Wait*>(args[0]);
    const Site* site = wait.site;
    int first = wait.thread;
    auto same = [&](bool yes) {
        if (yes) return;
        fail("%s at %s:%d: threads of the warpgroup have issued different products", site->what, site->file,
             site->line);
    };
    while (static_cast<int>(queue_of(first).closed.size()) > wait.most) {
        size_t count = queue_of(first).closed.front().size();
        for (int t = 0; t < GROUP; t++) {
            Queue& q = queue_of(first + t);
            same(!q.closed.empty() && q.closed.front().size() == count);
            const auto& firsts = queue_of(first).closed.front();
            for (size_t i = 0; i < count; i++) same(q.closed.front()[i] == firsts[i]);
        }
        for (size_t i = 0; i < count; i++) multiply(first, i);
        for (const Product& p : queue_of(first).closed.front()) mark_operands(p, false);
        for (int t = first; t < first + GROUP; t++) queue_of(t).closed.erase(queue_of(t).closed.begin());
    }
    // An operand may also be one of a product that still runs.
    for (const auto& group : queue_of(first).closed) {
        for (const Product& p : group) mark_operands(p, true);
    }
    for (const Product& p : queue_of(first).open) mark_operands(p, true);
}

} // namespace

void reset_wgmma() {
    for (Queue& q : engine->products->queues) q = Queue();
}

void exit_wgmma(int thread) {
    const Queue& q = queue_of(thread);
    for (const auto& group : q.closed) {
        if (!group.empty()) fail("a thread exits without a wait for the wgmma that it has issued");
    }
    if (!q.open.empty()) fail("a thread exits without a commit of the wgmma that it has issued");
}

Word wgmma_operand(const void* p, int next) {
    Word group = 1024 >> 4, block = static_cast<Word>((next & 0x3ffff) >> 4), swizzle_128 = 1;
    return (shared_offset(p) & 0x3ffff) >> 4 | block << 16 | group << 32 | swizzle_128 << 62;
}

void wgmma_fence() { queue_of(engine->running).fenced = true; }

void wgmma(const Site* site, float* d, int n, Operand a, Operand b, bool add) {
    int me = engine->running, first = me & ~(GROUP - 1);
    Queue& q = queue_of(me);
    if (first + GROUP > engine->threads) {
        fail("%s at %s:%d needs a warpgroup, 128 threads", site->what, site->file, site->line);
    }
    if (!q.fenced) fail("%s at %s:%d without a wgmma_fence before it", site->what, site->file, site->line);
    check_operand(site, a);
    check_operand(site, b);
    Product p{site, d, n, a, b, add};
    // The operation is the warpgroup's, so its reads are checked once, for the thread that issues it first.
    bool is_first = true;
    size_t index = q.open.size(), groups = q.closed.size();
    for (int t = first; t < first + GROUP; t++) {
        if (t == me) continue;
        const Queue& other = queue_of(t);
        is_first &= !(other.closed.size() > groups || (other.closed.size() == groups && other.open.size() > index));
    }
    if (is_first) {
        each_piece(a, M, [&](char* at) { access_at(site, at, 16, Access::PEEK); });
        each_piece(b, n, [&](char* at) { access_at(site, at, 16, Access::PEEK); });
        mark_operands(p, true);
    }
    hold(q, d, n).products++;
    q.open.push_back(p);
}

void wgmma_commit() {
    Queue& q = queue_of(engine->running);
    q.closed.push_back(std::move(q.open));
    q.open.clear();
}

void wgmma_wait(const Site* site, int most) {
    Wait wait{site, engine->running, most};
    warpgroup_collective(site, land_groups, &wait);
    queue_of(engine->running).fenced = false;
}

void set_registers(const Site* site, int count) {
    if (count < 24 || count > 256 || count % 8) {
        fail("%s at %s:%d: %d registers; 24 to 256 in steps of 8", site->what, site->file, site->line, count);
    }
    auto nothing = [](void**) {};
    warpgroup_collective(site, nothing, nullptr);
}

} // namespace simt
