# What the guest runs as its first program, PID 1: it dirties memory at a rate, checks what it wrote, and counts.
#
# Given by --defsym: PAGES, the working set; PAGES_PER_TICK, written in each hundredth of a second; STEP, which visits
# every page once before the first comes again. The n-th write goes to page n * STEP mod PAGES and holds n there; what
# lies there before is n - PAGES, or nothing at first. Linux's own calls (syscalls(2)) and nothing else: no library.

        .intel_syntax noprefix
        .globl  _start
        .set    SYS_write, 1
        .set    SYS_mmap, 9
        .set    SYS_nanosleep, 35
        .set    TICK_NS, 10000000

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
