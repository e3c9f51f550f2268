/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The inputs that fuzzing of the decoder found worth keeping, each played once.
 */
#include "check.h"

#include "../fuzz/decode.c"

TEST(every_kept_input_is_harmless) {
    char folder[512], path[1024];
    static uint8_t data[1 << 20];
    const char *end = strrchr(__FILE__, '/');
    struct dirent *entry;
    int played = 0;
    snprintf(folder, sizeof folder, "%.*s/../fuzz/corpus", (int)(end - __FILE__), __FILE__);
    DIR *dir = opendir(folder);
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *file = fopen(path, "rb");
        CHECK(file != NULL);
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
        played++;
    }
    closedir(dir);
    CHECK(played > 20);
}

CHECK_MAIN()
