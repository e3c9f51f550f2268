/* shim.h: what machio needs beside Mach's own calls. */

#define MACHIO_RECEIVED_LAST ...
#define MACHIO_ASK_CHECK_IN ...
#define MACHIO_ASK_REGISTER ...
#define MACHIO_ASK_LOOK_UP ...
#define MACHIO_LEAVE_UNLINK ...
#define MACHIO_LEAVE_NOW ...

mach_msg_return_t machio_send(mach_msg_header_t *buffer, mach_msg_bits_t bits, mach_port_t remote,
                              mach_port_t local, mach_msg_id_t id, const char *payload,
                              mach_msg_size_t size, mach_msg_option_t option,
                              mach_msg_timeout_t timeout);
mach_msg_return_t machio_receive_now(mach_msg_header_t *buffer, mach_msg_option_t option,
                                     mach_msg_size_t size, mach_port_name_t name);
kern_return_t machio_request_room(mach_port_name_t name, mach_port_name_t notify, int kq, int epfd,
                                  mach_port_t *previous);
void machio_pass_room(mach_port_name_t name);
int machio_notifications(mach_port_name_t name, uint64_t *words, int count);
int machio_events(int kq, uint64_t *words, int count);
int machio_watch_end(int kq, int fd, uint64_t udata);
const char *machio_last_error(void);
kern_return_t machio_set_bootstrap_command(const char *const argv[]);
kern_return_t machio_memory_allocate(mach_vm_size_t size, mach_vm_address_t *address);
kern_return_t machio_bootstrap_connect(int start);
kern_return_t machio_bootstrap_knock(int *ret_fd);
kern_return_t machio_bootstrap_enter(int fd);
kern_return_t machio_bootstrap_ask(int what, const char *service_name, mach_port_t port,
                                   mach_port_t reply, unsigned *ret_connection);
kern_return_t machio_bootstrap_answer(int what, const char *service_name, mach_port_t port,
                                      mach_port_t reply, unsigned connection, mach_port_t *sp);
kern_return_t machio_bootstrap_directory(char *path, unsigned int size);
kern_return_t machio_bootstrap_listen(int *ret_listener);
kern_return_t machio_bootstrap_claim(int *ret_crashed);
kern_return_t machio_bootstrap_welcome(int connection, mach_port_name_t name);
kern_return_t machio_bootstrap_leave(int listener, int how);
