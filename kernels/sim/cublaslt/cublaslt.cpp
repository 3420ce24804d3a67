// The part of cuBLASLt that `ecom` calls (names and meanings as in NVIDIA's cuBLAS library), on the simulated GPUs' memory: a
// plain loop over columns of matrices that are stored column by column. It wants of its caller what the real one may want: the
// shapes, leading dimensions, alignments and workspace of a product are those that its algorithm was asked for.
#include <atomic>
#include <cmath>

#include "driver.hpp"

enum Status { DONE = 0, WRONG = 7, UNSUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };
static const int COMPUTE_32F = 68;
enum Epilogue { DEFAULT = 1, BIAS = 4 };

struct MatrixLayout {
    int type;
    uint64_t rows, columns;
    int64_t stride;
    bool operator==(const MatrixLayout &o) const {
        return type == o.type && rows == o.rows && columns == o.columns && stride == o.stride;
    }
    size_t bytes(size_t elements) const { return elements * (type == F32 ? 4 : 2); }
    size_t extent() const { return bytes((columns - 1) * static_cast<size_t>(stride) + rows); }
};
struct MatmulDesc {
    int compute, scale;
    int transposed[2] = {0, 0};
    int epilogue = DEFAULT, bias_type = -1;
    Pointer bias = 0;
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t alignment[4] = {256, 256, 256, 256};
};
// What an algorithm was asked for, by number; the caller keeps no more of it.
struct Asked {
    MatmulDesc desc;
    MatrixLayout layouts[4];
    uint32_t alignment[4];
};
static std::mutex mutex;
static std::vector<Asked> all_asked;
struct Algo {
    uint64_t number, rest[7];
};
struct Heuristic {
    Algo algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
// An odd size, so that it matters which is given.
static const size_t WORKSPACE = 4352;

static std::atomic<uint64_t> products;
extern "C" __attribute__((visibility("default"))) uint64_t simulator_products() { return products; }

static int wrong(const std::string &what) {
    complain(INVALID_VALUE, "cuBLASLt: " + what);
    return WRONG;
}

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 120000; }
API cublasLtCreate(void **handle) {
    if (!current) return wrong("a handle without a context");
    *handle = malloc(1);
    return DONE;
}
API cublasLtDestroy(void *handle) {
    free(handle);
    return DONE;
}
API cublasLtMatrixLayoutCreate(MatrixLayout **layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    *layout = new MatrixLayout{type, rows, columns, stride};
    return DONE;
}
API cublasLtMatrixLayoutDestroy(MatrixLayout *layout) {
    delete layout;
    return DONE;
}
API cublasLtMatmulDescCreate(MatmulDesc **desc, int compute, int scale) {
    *desc = new MatmulDesc();
    (*desc)->compute = compute;
    (*desc)->scale = scale;
    return DONE;
}
API cublasLtMatmulDescDestroy(MatmulDesc *desc) {
    delete desc;
    return DONE;
}
API cublasLtMatmulDescSetAttribute(MatmulDesc *desc, int attribute, const void *value, size_t bytes) {
    void *to;
    size_t size = 4;
    switch (attribute) {
    case 3: to = &desc->transposed[0]; break;
    case 4: to = &desc->transposed[1]; break;
    case 7: to = &desc->epilogue; break;
    case 8: to = &desc->bias, size = 8; break;
    case 26: to = &desc->bias_type; break;
    default: return wrong("an attribute that is not simulated");
    }
    if (bytes != size) return wrong("the size of an attribute");
    memcpy(to, value, size);
    return DONE;
}
API cublasLtMatmulPreferenceCreate(Preference **preference) {
    *preference = new Preference();
    return DONE;
}
API cublasLtMatmulPreferenceDestroy(Preference *preference) {
    delete preference;
    return DONE;
}
API cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *value, size_t bytes) {
    if (attribute == 1 && bytes == 8) memcpy(&preference->workspace, value, 8);
    else if (attribute >= 5 && attribute <= 8 && bytes == 4) memcpy(&preference->alignment[attribute - 5], value, 4);
    else return wrong("a preference that is not simulated");
    return DONE;
}

// Rows and columns of a factor as it is multiplied.
static std::pair<uint64_t, uint64_t> multiplied(const MatrixLayout &layout, int transposed) {
    return transposed ? std::pair(layout.columns, layout.rows) : std::pair(layout.rows, layout.columns);
}

static int check_shapes(const MatmulDesc &desc, const MatrixLayout (&l)[4]) {
    for (const MatrixLayout &layout : l) {
        if (layout.rows == 0 || layout.columns == 0) return wrong("an empty matrix");
        if (layout.stride < static_cast<int64_t>(layout.rows)) return wrong("a leading dimension below the rows");
    }
    auto [m, k] = multiplied(l[0], desc.transposed[0]);
    auto [k2, n] = multiplied(l[1], desc.transposed[1]);
    if (k != k2 || l[2].rows != m || l[2].columns != n || l[3].rows != m || l[3].columns != n)
        return wrong("matrices that do not go together");
    return DONE;
}

static bool supported(const MatmulDesc &desc, const MatrixLayout (&l)[4]) {
    if (desc.compute != COMPUTE_32F || desc.scale != F32) return false;
    if (l[0].type != l[1].type || l[2].type != l[3].type) return false;
    if (l[0].type != F32 && l[0].type != BF16) return false;
    if (l[3].type != F32 && !(l[3].type == BF16 && l[0].type == BF16)) return false;
    if (desc.epilogue == DEFAULT) return true;
    if (desc.epilogue != BIAS) return false;
    // NVIDIA's table of what `cublasLtMatmul` supports has no bias of another type than the result's for these.
    return desc.bias_type == -1 || desc.bias_type == l[3].type;
}

API cublasLtMatmulAlgoGetHeuristic(void *, MatmulDesc *desc, MatrixLayout *a, MatrixLayout *b, MatrixLayout *c,
                                   MatrixLayout *d, Preference *preference, int wanted, Heuristic *results, int *found) {
    const MatrixLayout layouts[4] = {*a, *b, *c, *d};
    *found = 0;
    if (wanted < 1) return wrong("no result is wanted");
    if (int bad = check_shapes(*desc, layouts)) return bad;
    if (!supported(*desc, layouts)) return UNSUPPORTED;
    if (preference->workspace < WORKSPACE) return UNSUPPORTED;
    Asked asked = {*desc, {*a, *b, *c, *d}, {}};
    memcpy(asked.alignment, preference->alignment, sizeof asked.alignment);
    std::lock_guard<std::mutex> lock(mutex);
    all_asked.push_back(asked);
    results[0] = {{all_asked.size(), {}}, WORKSPACE, DONE, 1.0f, {}};
    *found = 1;
    return DONE;
}

static float at(const MatrixLayout &layout, Pointer from, uint64_t row, uint64_t column) {
    const uint64_t i = column * static_cast<uint64_t>(layout.stride) + row;
    if (layout.type == F32) return reinterpret_cast<const float *>(from)[i];
    uint32_t bits = static_cast<uint32_t>(reinterpret_cast<const uint16_t *>(from)[i]) << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static void put_at(const MatrixLayout &layout, Pointer to, uint64_t row, uint64_t column, float x) {
    const uint64_t i = column * static_cast<uint64_t>(layout.stride) + row;
    if (layout.type == F32) {
        reinterpret_cast<float *>(to)[i] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint16_t half = x != x ? 0x7fff : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    reinterpret_cast<uint16_t *>(to)[i] = half;
}

struct Product {
    Asked asked;
    float alpha, beta;
    Pointer at[4], bias, workspace;
    Device *device;

    int run() const {
        const auto &l = asked.layouts;
        auto [m, k] = multiplied(l[0], asked.desc.transposed[0]);
        const uint64_t n = l[3].columns;
        const bool biased = asked.desc.epilogue == BIAS;
        for (int i = 0; i < 4; i++) {
            if (i == 2 && beta == 0.0f) continue;
            if (!device->memory.holds(at[i], l[i].extent())) return wrong("a matrix beyond its memory");
            if (i < 3 && !sim::check_readable(reinterpret_cast<void *>(at[i]), l[i].extent()))
                return wrong("a matrix that nothing has written");
        }
        if (biased && !device->memory.holds(bias, m * 4)) return wrong("a bias beyond its memory");
        if (!device->memory.holds(workspace, WORKSPACE)) return wrong("a workspace beyond its memory");
        memset(reinterpret_cast<void *>(workspace), 0xFF, WORKSPACE);
        for (uint64_t j = 0; j < n; j++) {
            for (uint64_t i = 0; i < m; i++) {
                float total = 0.0f;
                for (uint64_t begin = 0; begin < k; begin += 32) {
                    float sum = 0.0f;
                    for (uint64_t p = begin; p < std::min(begin + 32, k); p++) {
                        float x = asked.desc.transposed[0] ? ::at(l[0], at[0], p, i) : ::at(l[0], at[0], i, p);
                        float y = asked.desc.transposed[1] ? ::at(l[1], at[1], j, p) : ::at(l[1], at[1], p, j);
                        sum = fmaf(x, y, sum);
                    }
                    total += sum;
                }
                total *= alpha;
                if (beta != 0.0f) total += beta * ::at(l[2], at[2], i, j);
                if (biased) total += reinterpret_cast<const float *>(bias)[i];
                put_at(l[3], at[3], i, j, total);
            }
        }
        sim::check_written(reinterpret_cast<void *>(at[3]), l[3].extent());
        return DONE;
    }
};

API cublasLtMatmul(void *, MatmulDesc *desc, const float *alpha, Pointer a, MatrixLayout *la, Pointer b, MatrixLayout *lb,
                   const float *beta, Pointer c, MatrixLayout *lc, Pointer d, MatrixLayout *ld, const Algo *algo,
                   Pointer workspace, size_t workspace_bytes, Stream *stream) {
    std::unique_lock<std::mutex> lock(mutex);
    if (!algo || algo->number == 0 || algo->number > all_asked.size()) return wrong("an algorithm that is none");
    Asked asked = all_asked[algo->number - 1];
    lock.unlock();
    if (!current || current != stream->device) return wrong("a stream of another device");
    const auto &l = asked.layouts;
    if (!(*la == l[0] && *lb == l[1] && *lc == l[2] && *ld == l[3]) || desc->compute != asked.desc.compute ||
        desc->epilogue != asked.desc.epilogue || desc->bias_type != asked.desc.bias_type ||
        desc->transposed[0] != asked.desc.transposed[0] || desc->transposed[1] != asked.desc.transposed[1])
        return wrong("an algorithm for another product");
    if (desc->epilogue == BIAS && desc->bias_type != F32 && l[3].type != F32) return wrong("a bias that is not f32");
    if (workspace_bytes < WORKSPACE || workspace % 256 != 0) return wrong("a workspace that is too small or misaligned");
    if (*beta != 0.0f && c != d) return wrong("a sum that is not taken in place");
    Product product = {asked, *alpha, *beta, {a, b, c, d}, desc->bias, workspace, stream->device};
    for (int i = 0; i < 4; i++)
        if (!(i == 2 && *beta == 0.0f) && product.at[i] % asked.alignment[i] != 0)
            return wrong("a matrix that is less aligned than was said");
    products++;
    return put(stream, [product] { return product.run(); });
}
