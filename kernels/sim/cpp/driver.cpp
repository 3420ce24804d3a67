// The part of the CUDA driver that `ecom` calls (names and meanings as in NVIDIA's CUDA driver API), over the simulator.
// There are five devices, one for each schedule, and three more. Everything is done before a call returns. What goes wrong in a kernel is
// printed, and the call gives an error as a GPU would, though at once.
#include "driver.hpp"

static thread_local std::string complaint;
int complain(Result result, const std::string &what) {
    complaint = what;
    fprintf(stderr, "simulated GPU: %s\n", what.c_str());
    return result;
}

Device devices[DEVICES];
thread_local Device *current = nullptr;

static sim::Schedule schedule(const Device *device) {
    return sim::CHECKED ? sim::Schedule::Random : static_cast<sim::Schedule>((device - devices) % sim::SCHEDULES);
}

// ---- Devices and contexts; a context is its device.

// The shared memory of a block that does not ask for more.
static const size_t SHARED_FOR_ALL = 48 * 1024;

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int *version) {
    *version = 12000;
    return SUCCESS;
}
// The only one to be seen, if there is to be one.
static const char *const only = getenv("ECOM_SIM_GPU");
API cuDeviceGetCount(int *count) {
    *count = only ? 1 : DEVICES;
    return SUCCESS;
}
API cuDeviceGet(int *device, int ordinal) {
    if (only && ordinal == 0) ordinal = atoi(only);
    if (ordinal < 0 || ordinal >= DEVICES) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API cuDeviceGetName(char *text, int length, int device) {
    snprintf(text, static_cast<size_t>(length), "simulated GPU, %s", sim::name(schedule(&devices[device])));
    return SUCCESS;
}
API cuDeviceGetUuid_v2(char *uuid, int device) {
    memset(uuid, 0, 16);
    uuid[0] = static_cast<char>(device);
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = MEMORY;
    return SUCCESS;
}
// Some of the five are newer; the three after them have the schedules of the others. Compute capability times ten.
static int capability(int device) {
    if (sim::CHECKED || device >= 3) return 90;
    return device == 0 ? 80 : device == 1 ? 86 : 89;
}
// The shared memory that a block can have, with what is declared in the kernel: CUDA C++ Programming Guide, "Compute Capabilities".
static size_t shared_limit(int device) {
    int of = capability(device);
    return of == 80 ? 163 * 1024 : of == 90 ? sim::SHARED_MOST : 99 * 1024;
}
API cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: *value = 1024; break;                                   // threads of a block
    case 8: *value = static_cast<int>(SHARED_FOR_ALL); break;       // shared memory of a block
    case 10: *value = 32; break;                                    // lanes of a warp
    case 16: *value = 4; break;                                     // multiprocessors
    case 75: *value = capability(device) / 10; break;               // compute capability, major
    case 76: *value = capability(device) % 10; break;               // and minor
    case 97: *value = static_cast<int>(shared_limit(device)); break; // shared memory of a block that asks for it
    case 115: *value = 1; break;                                    // memory pools
    default: *value = 0;
    }
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(Device **context, int device) {
    *context = &devices[device];
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxGetCurrent(Device **context) {
    *context = current;
    return SUCCESS;
}
API cuCtxSetCurrent(Device *context) {
    current = context;
    return SUCCESS;
}
API cuCtxSynchronize() { return must_happen_now("synchronize"); }
API cuDeviceGetDefaultMemPool(void **pool, int device) {
    *pool = &devices[device];
    return SUCCESS;
}
API cuMemPoolSetAttribute(void *, int, void *) { return SUCCESS; }
API cuMemPoolTrimTo(void *, size_t) { return SUCCESS; }

// ---- Streams and events.

API cuStreamCreate(Stream **stream, unsigned) {
    if (!current) return INVALID_CONTEXT;
    *stream = new Stream{current, nullptr, false};
    return SUCCESS;
}
API cuStreamDestroy_v2(Stream *stream) {
    delete stream;
    return SUCCESS;
}
API cuStreamSynchronize(Stream *) { return must_happen_now("synchronize"); }
API cuStreamWaitEvent(void *, void *, unsigned) { return SUCCESS; }
API cuEventCreate(void **event, unsigned) {
    *event = malloc(1);
    return SUCCESS;
}
API cuEventDestroy_v2(void *event) {
    free(event);
    return SUCCESS;
}
API cuEventRecord(void *, void *) { return SUCCESS; }
API cuEventQuery(void *) { return SUCCESS; }
API cuEventSynchronize(void *) { return SUCCESS; }
API cuEventElapsedTime(float *milliseconds, void *, void *) {
    *milliseconds = 0.0f;
    return SUCCESS;
}
API cuEventElapsedTime_v2(float *milliseconds, void *, void *) {
    *milliseconds = 0.0f;
    return SUCCESS;
}

// ---- Memory.

API cuMemAlloc_v2(Pointer *pointer, size_t bytes) {
    if (int bad = must_happen_now("allocate")) return bad;
    return current ? current->memory.allocate(pointer, bytes) : INVALID_CONTEXT;
}
API cuMemAllocAsync(Pointer *pointer, size_t bytes, Stream *stream) { return allocate(stream, pointer, bytes); }
API cuMemFree_v2(Pointer pointer) {
    if (int bad = must_happen_now("free")) return bad;
    return current ? current->memory.release(pointer) : INVALID_CONTEXT;
}
// The stream says whose memory it is, whatever context is current.
API cuMemFreeAsync(Pointer pointer, Stream *stream) { return release(stream, pointer); }
API cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    if (!current) return INVALID_CONTEXT;
    *free_bytes = current->memory.free_bytes();
    *total = MEMORY;
    return SUCCESS;
}
API cuMemHostAlloc(void **pointer, size_t bytes, unsigned) {
    *pointer = malloc(bytes);
    return *pointer ? SUCCESS : OUT_OF_MEMORY;
}
API cuMemFreeHost(void *pointer) {
    free(pointer);
    return SUCCESS;
}

static int check(Device *device, Pointer pointer, size_t bytes, const char *what) {
    if (!device) return INVALID_CONTEXT;
    if (device->memory.holds(pointer, bytes)) return SUCCESS;
    return complain(INVALID_VALUE, std::string(what) + " " + std::to_string(bytes) + " bytes beyond an allocation");
}

static int copy(Device *device, Pointer to, Pointer from, size_t bytes) {
    if (int bad = check(device, from, bytes, "copy from")) return bad;
    if (int bad = check(device, to, bytes, "copy to")) return bad;
    memmove(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
    sim::check_copied(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
    return SUCCESS;
}
static int set(Device *device, Pointer to, unsigned char value, size_t bytes) {
    if (int bad = check(device, to, bytes, "set")) return bad;
    memset(reinterpret_cast<void *>(to), value, bytes);
    sim::check_written(reinterpret_cast<void *>(to), bytes);
    return SUCCESS;
}

// A graph would use the main memory again at each launch, when it may be gone: so no copy to or from there is captured here.
API cuMemcpyHtoD_v2(Pointer to, const void *from, size_t bytes) {
    if (int bad = must_happen_now("copy from main memory")) return bad;
    if (int bad = check(current, to, bytes, "copy to")) return bad;
    memcpy(reinterpret_cast<void *>(to), from, bytes);
    sim::check_written(reinterpret_cast<void *>(to), bytes);
    return SUCCESS;
}
API cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, Stream *) { return cuMemcpyHtoD_v2(to, from, bytes); }
API cuMemcpyDtoH_v2(void *to, Pointer from, size_t bytes) {
    if (int bad = must_happen_now("copy to main memory")) return bad;
    if (int bad = check(current, from, bytes, "copy from")) return bad;
    if (!sim::check_readable(reinterpret_cast<const void *>(from), bytes))
        return complain(ILLEGAL_ADDRESS, "copy from memory that nothing has written");
    memcpy(to, reinterpret_cast<const void *>(from), bytes);
    return SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, Stream *) { return cuMemcpyDtoH_v2(to, from, bytes); }
API cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t bytes) {
    if (int bad = must_happen_now("copy")) return bad;
    return copy(current, to, from, bytes);
}
API cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, Stream *stream) {
    return put(stream, [=] { return copy(stream->device, to, from, bytes); });
}
API cuMemsetD8_v2(Pointer to, unsigned char value, size_t bytes) {
    if (int bad = must_happen_now("set memory")) return bad;
    return set(current, to, value, bytes);
}
API cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, Stream *stream) {
    return put(stream, [=] { return set(stream->device, to, value, bytes); });
}

// ---- Modules: PTX is read for the names and parameters of its kernels, which must be those that were compiled here.

struct Function {
    const sim::Kernel *kernel;
    unsigned threads;      // at most, as the kernel promises to the compiler
    size_t declared;       // shared memory
    size_t allowed, limit; // at launch, and in all
};
struct Module {
    std::map<std::string, Function> functions;
};

// The sizes of the parameters of an entry; `text` begins after its name.
static std::vector<size_t> parameters(const std::string &text) {
    std::vector<size_t> sizes;
    for (size_t at = 0; (at = text.find(".param", at)) != std::string::npos; at++) {
        size_t end = text.find_first_of(",)", at);
        std::string one = text.substr(at, end - at);
        size_t array = one.find(".b8"), count = one.find('[');
        if (array != std::string::npos && count != std::string::npos)
            sizes.push_back(strtoul(one.c_str() + count + 1, nullptr, 10));
        else
            sizes.push_back(one.find("64 ") != std::string::npos   ? 8
                            : one.find("32 ") != std::string::npos ? 4
                            : one.find("16 ") != std::string::npos ? 2
                                                                   : 1);
    }
    return sizes;
}

// The shared memory that an entry declares itself, or a function that is part of it: what its text names.
static size_t declared(const std::string &text, const std::string &entry) {
    size_t bytes = 0;
    const std::string shared = ".shared .align ";
    for (size_t at = 0; (at = text.find(shared, at)) != std::string::npos;) {
        at += shared.size();
        size_t name = text.find(".b8 ", at) + 4, count = text.find('[', name);
        if (entry.find(text.substr(name, count - name)) == std::string::npos) continue;
        size_t align = strtoul(text.c_str() + at, nullptr, 10);
        bytes = (bytes + align - 1) / align * align + strtoul(text.c_str() + count + 1, nullptr, 10);
    }
    return bytes;
}

API cuModuleLoadData(Module **module, const char *image) {
    if (int bad = must_happen_now("load a module")) return bad;
    std::string text(image);
    if (!current) return INVALID_CONTEXT;
    // What has an a is for its very capability, other PTX for newer ones too.
    int device = static_cast<int>(current - devices);
    bool newer = capability(device) == 90 && text.find(".target sm_90a") != std::string::npos;
    if (text.find(".version") == std::string::npos || (!newer && text.find(".target sm_80") == std::string::npos))
        return complain(INVALID_PTX, "not PTX for this GPU");
    *module = new Module();
    const std::string entry = ".entry ";
    for (size_t at = 0; (at = text.find(entry, at)) != std::string::npos;) {
        at += entry.size();
        size_t open = text.find('(', at), body = text.find('{', open);
        std::string name = text.substr(at, open - at), head = text.substr(open, body - open);
        const sim::Kernel *kernel = sim::find(name);
        if (!kernel || kernel->parameters != parameters(head.substr(0, head.find("\n)"))  + ")"))
            return complain(INVALID_PTX, name + ": the PTX is not of this source; run `cargo xtask ptx`");
        size_t most = head.find(".maxntid");
        unsigned threads =
            most == std::string::npos ? 1024 : static_cast<unsigned>(strtoul(head.c_str() + most + 8, nullptr, 10));
        size_t own = declared(text, text.substr(body, text.find(entry, body) - body));
        (*module)->functions[name] = {kernel, threads, own, SHARED_FOR_ALL - own, shared_limit(device)};
    }
    return SUCCESS;
}
API cuModuleUnload(Module *module) {
    delete module;
    return SUCCESS;
}
API cuModuleGetFunction(Function **function, Module *module, const char *name) {
    auto found = module->functions.find(name);
    if (found == module->functions.end()) return NOT_FOUND;
    *function = &found->second;
    return SUCCESS;
}
static const int SHARED = 1, MAX_DYNAMIC_SHARED = 8;
API cuFuncGetAttribute(int *value, int attribute, Function *function) {
    *value = attribute == 0                    ? static_cast<int>(function->threads)
             : attribute == SHARED             ? static_cast<int>(function->declared)
             : attribute == MAX_DYNAMIC_SHARED ? static_cast<int>(function->allowed)
                                               : 0;
    return SUCCESS;
}
API cuFuncSetAttribute(Function *function, int attribute, int value) {
    if (attribute != MAX_DYNAMIC_SHARED) return SUCCESS;
    if (value < 0 || static_cast<size_t>(value) + function->declared > function->limit) return INVALID_VALUE;
    function->allowed = static_cast<size_t>(value);
    return SUCCESS;
}

static int run(Device *device, const Function *function, sim::Launch launch, void *const *arguments) {
    launch.schedule = schedule(device);
    launch.seed = __atomic_add_fetch(&device->launches, 1, __ATOMIC_RELAXED);
    launch.kernel = [&] { function->kernel->call(arguments); };
    std::string fault = sim::run(launch);
    Result result = LAUNCH_FAILED;
    if (fault.empty()) {
        fault = device->memory.fault();
        result = ILLEGAL_ADDRESS;
    }
    if (fault.empty()) return SUCCESS;
    return complain(result, function->kernel->name + " (" + sim::name(launch.schedule) + "): " + fault);
}

API cuLaunchKernel(Function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream *stream, void **arguments, void **) {
    if (!current) return INVALID_CONTEXT;
    const std::string &name = function->kernel->name;
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_x > 0x7FFFFFFF || grid_y > 65535 || grid_z > 65535)
        return complain(INVALID_VALUE, name + ": a grid of (" + std::to_string(grid_x) + ", " + std::to_string(grid_y) +
                                           ", " + std::to_string(grid_z) + ") blocks");
    unsigned threads = block_x * block_y * block_z;
    if (threads == 0 || threads > function->threads || threads % 32 != 0)
        return complain(INVALID_VALUE, name + ": blocks of " + std::to_string(threads) +
                                           " threads; wanted whole warps, at most " + std::to_string(function->threads) +
                                           " threads");
    if (shared_bytes > function->allowed)
        return complain(INVALID_VALUE, name + ": " + std::to_string(shared_bytes) + " bytes of shared memory");
    sim::Launch launch = {};
    launch.grid = {grid_x, grid_y, grid_z};
    launch.block = {block_x, block_y, block_z};
    launch.shared_bytes = shared_bytes;
    launch.shared_limit = function->limit;
    // A graph has the arguments as they are now.
    struct alignas(64) Words {
        uint64_t words[8];
    };
    std::vector<std::vector<Words>> values;
    for (size_t i = 0; i < function->kernel->parameters.size(); i++) {
        size_t bytes = function->kernel->parameters[i];
        values.emplace_back((bytes + sizeof(Words) - 1) / sizeof(Words));
        memcpy(values.back().data(), arguments[i], bytes);
    }
    Device *device = stream ? stream->device : current;
    return put(stream, [=]() mutable {
        std::vector<void *> pointers;
        for (auto &value : values) pointers.push_back(value.data());
        return run(device, function, launch, pointers.data());
    });
}

// ---- Errors.

// Not the driver's: what this thread was last told on stderr.
extern "C" __attribute__((visibility("default"))) const char *simulator_complaint() { return complaint.c_str(); }

API cuGetErrorName(int error, const char **name) {
    switch (error) {
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
    case INVALID_PTX: *name = "CUDA_ERROR_INVALID_PTX"; break;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
    case CAPTURE_INVALIDATED: *name = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
    default: *name = "CUDA_ERROR"; break;
    }
    return SUCCESS;
}
API cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }
