// Where in the source an address of the code comes from, as far as the debug information and addr2line tell.
#include "checker.h"
#include <cstdio>
#include <dlfcn.h>
#include <mutex>

namespace simt {

namespace {

std::string look_up(const void* pc) {
    Dl_info info;
    if (!dladdr(pc, &info) || !info.dli_fname) return "?";
    // The address that a call returns to belongs to the line after it.
    auto offset = static_cast<const char*>(pc) - static_cast<const char*>(info.dli_fbase) - 1;
    char command[1024], text[1024] = "";
    snprintf(command, sizeof command, "addr2line -e '%s' %#tx 2>/dev/null", info.dli_fname, offset);
    if (FILE* pipe = popen(command, "r")) {
        if (!fgets(text, sizeof text, pipe)) text[0] = 0;
        pclose(pipe);
    }
    std::string line = text;
    line = line.substr(0, line.find_first_of(" \n"));
    return line.empty() || line[0] == '?' ? "an unknown line" : line;
}

} // namespace

std::string source_line(const void* pc) {
    static std::mutex mutex; // devices run in several threads
    std::lock_guard<std::mutex> lock(mutex);
    static std::map<const void*, std::string> known; // a look-up reads all of the program's debug information
    std::string& line = known[pc];
    if (line.empty()) line = look_up(pc);
    return line;
}

} // namespace simt
