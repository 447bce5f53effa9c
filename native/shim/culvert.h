/* Shared by every file of the shim. A call returns a result >= 0 or -errno, so that no second call asks for errno. */
#ifndef CULVERT_H
#define CULVERT_H

#define CULVERT_API __attribute__((visibility("default")))

#endif
