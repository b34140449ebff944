# What the guest runs as its first program, PID 1: it dirties memory at a rate, checks what it wrote, and counts.
#
# Given by --defsym: PAGES, the working set; PAGES_PER_TICK, written in each hundredth of a second; STEP, which visits
# every page once before the first comes again. The n-th write goes to page n * STEP mod PAGES and holds n there; what
# lies there before is n - PAGES, or nothing at first. Linux's own calls (syscalls(2)) and nothing else: no library.
#
# With DISK above 0 there has to be an IOMMU. It loads so many modules first, /m0 and on, which bring /dev/vda. In the
# n-th tick the disk's sector n mod SECTORS is read past the kernel's cache, has to hold n - SECTORS, or nothing at
# first, and is given n.

        .intel_syntax noprefix
        .globl  _start
        .set    SYS_write, 1
        .set    SYS_mmap, 9
        .set    SYS_nanosleep, 35
        .set    TICK_NS, 10000000
        .ifndef DISK
        .set    DISK, 0
        .endif
        .set    SYS_open, 2
        .set    SYS_pread, 17
        .set    SYS_pwrite, 18
        .set    SYS_mount, 165
        .set    SYS_finit_module, 313
        .set    O_RDWR_DIRECT_SYNC, 0x105002
        .set    SECTORS, 64
        .set    SECTOR, 512

        .text
_start:
        mov     eax, SYS_mmap
        xor     edi, edi
        mov     rsi, PAGES * 4096
        mov     edx, 3                  # PROT_READ | PROT_WRITE
        mov     r10d, 0x22              # MAP_PRIVATE | MAP_ANONYMOUS
        mov     r8, -1
        xor     r9d, r9d
        syscall
        mov     r12, rax                # the working set
        xor     r13d, r13d              # ticks so far
        xor     r14d, r14d              # writes so far
        xor     r15d, r15d              # the page that is next

        .if DISK
        mov     ebx, DISK
module: lea     rdi, [rip + module_path]
        xor     esi, esi
        call    open
        mov     edi, eax
        mov     eax, SYS_finit_module
        lea     rsi, [rip + no_options]
        xor     edx, edx
        syscall
        test    rax, rax
        jnz     no_disk
        inc     byte ptr [rip + module_digit]
        dec     ebx
        jnz     module
        lea     rdi, [rip + sysfs]
        lea     rsi, [rip + sys]
        call    mount
        lea     rdi, [rip + iommu_path]
        xor     esi, esi
        call    open
        test    eax, eax
        js      no_disk
        lea     rdi, [rip + devtmpfs]
        lea     rsi, [rip + dev]
        call    mount
        lea     rdi, [rip + disk_path]
        mov     esi, O_RDWR_DIRECT_SYNC
        call    open
        mov     [rip + disk], eax
        test    eax, eax
        js      no_disk
        .endif

tick:
        mov     ebp, PAGES_PER_TICK
write_page:
        test    ebp, ebp
        jz      tell
        inc     r14
        mov     rbx, r15
        shl     rbx, 12
        xor     eax, eax                # what has to lie there
        mov     rcx, r14
        sub     rcx, PAGES
        cmovg   rax, rcx
        cmp     [r12 + rbx], rax
        jne     bad
        mov     [r12 + rbx], r14
        add     r15, STEP
        cmp     r15, PAGES
        jb      next
        sub     r15, PAGES
next:   dec     ebp
        jmp     write_page

tell:
        inc     r13
        .if DISK
        mov     eax, SYS_pread
        call    sector
        jne     bad_sector
        xor     eax, eax                # what has to lie there
        mov     rcx, r13
        sub     rcx, SECTORS
        cmovg   rax, rcx
        cmp     [rip + held], rax
        jne     bad_sector
        mov     [rip + held], r13
        mov     eax, SYS_pwrite
        call    sector
        jne     bad_sector
count:
        .endif
        lea     rdi, [rip + line_end]
        mov     byte ptr [rdi], 10
        mov     rax, r13
        mov     ecx, 10
digit:  xor     edx, edx
        div     rcx
        add     dl, '0'
        dec     rdi
        mov     [rdi], dl
        test    rax, rax
        jnz     digit
        sub     rdi, 6                  # "count "
        mov     rax, 0x20746e756f63     # little-endian "count " in six bytes
        mov     [rdi], eax
        shr     rax, 32
        mov     [rdi + 4], ax
        mov     rsi, rdi
        lea     rdx, [rip + line_end + 1]
        sub     rdx, rsi
        call    print
        mov     eax, SYS_nanosleep
        lea     rdi, [rip + pause]
        xor     esi, esi
        syscall
        jmp     tick

bad:
        lea     rsi, [rip + bad_text]
        mov     edx, 4
        call    print
        jmp     next

        .if DISK
no_disk:
        lea     rsi, [rip + bad_text]
        mov     edx, 4
        call    print
        jmp     no_disk

bad_sector:
        lea     rsi, [rip + bad_text]
        mov     edx, 4
        call    print
        jmp     count

mount:                                  # rdi: the file system, rsi: where
        mov     rdx, rdi
        mov     eax, SYS_mount
        xor     r10d, r10d
        xor     r8d, r8d
        syscall
        ret

open:                                   # rdi: the path, esi: how; the descriptor in eax
        mov     eax, SYS_open
        xor     edx, edx
        syscall
        ret

sector:                                 # eax: read or write this tick's sector whole; equal where that was done
        mov     edi, [rip + disk]
        lea     rsi, [rip + held]
        mov     edx, SECTOR
        mov     r10, r13
        and     r10d, SECTORS - 1
        imul    r10, r10, SECTOR
        syscall
        cmp     rax, SECTOR
        ret
        .endif

print:                                  # rsi, rdx: a whole line in one call, so that lines stay whole
        mov     eax, SYS_write
        mov     edi, 1
        syscall
        ret

        .data
        .balign 8
pause:  .quad   0, TICK_NS
bad_text:
        .ascii  "bad\n"
        .space  40
line_end:
        .byte   10

        .if DISK
disk:   .long   0
module_path:
        .byte   '/', 'm'
module_digit:
        .byte   '0', 0
devtmpfs:
        .asciz  "devtmpfs"
dev:    .asciz  "/dev"
sysfs:  .asciz  "sysfs"
sys:    .asciz  "/sys"
iommu_path:
        .asciz  "/sys/kernel/iommu_groups/0"
disk_path:
        .asciz  "/dev/vda"
no_options:
        .asciz  ""
        .balign 4096
held:   .space  SECTOR
        .endif
