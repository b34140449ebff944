# A guest for QEMU without an operating system: it writes pages of a working set at a rate, and does nothing else.
#
# PAGES_PER_SECOND, FIRST_PAGE, PAGES and STEP come from the command line of `as`. STEP and PAGES have no common divisor:
# each page is written once per cycle, far from the one before, as our own guest does (vmm.guest.cpu_workload, uniform).
# The pace is taken from the ACPI PM timer, which stands still while the guest
# does: after a pause nothing is caught up. What it has written so far stands at STATUS, behind a mark.
# Multiboot Specification 0.6.96, 3.1: it is entered in flat 32-bit protected mode.

        .set    STATUS, 0x200000
        .set    MARK, 0x76647563
        .set    PM_TIMER, 0x608                 # where SeaBIOS puts it
        .set    PM_TIMER_HZ, 3579545
        .set    PIT_DIVISOR, 2386               # 500 interrupts a second
        .set    MOST_TICKS, 200000              # 56 ms: what a late interrupt may catch up

        .text
        .align  4
        .long   0x1BADB002, 0, -0x1BADB002      # magic, flags, checksum

        .globl  _start
_start: cli
        lgdt    gdt_pointer
        ljmp    $8, $flat
flat:   movl    $16, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $stack, %esp
        movl    $0, STATUS + 4
        movl    $MARK, STATUS
        .if     PAGES_PER_SECOND == 0
idle:   hlt
        jmp     idle
        .endif

        movl    $tick, %eax                     # one interrupt gate: vector 32, the PIT's after the remap below
        movw    %ax, gate
        movw    $8, gate + 2
        movw    $0x8E00, gate + 4
        shrl    $16, %eax
        movw    %ax, gate + 6
        lidt    idt_pointer

        movb    $0x11, %al                      # both 8259: vectors 32 and 40, only the PIT's line open
        outb    %al, $0x20
        outb    %al, $0xA0
        movb    $32, %al
        outb    %al, $0x21
        movb    $40, %al
        outb    %al, $0xA1
        movb    $4, %al
        outb    %al, $0x21
        movb    $2, %al
        outb    %al, $0xA1
        movb    $1, %al
        outb    %al, $0x21
        outb    %al, $0xA1
        movb    $0xFE, %al
        outb    %al, $0x21
        movb    $0xFF, %al
        outb    %al, $0xA1

        movb    $0x34, %al                      # PIT channel 0, rate generator
        outb    %al, $0x43
        movb    $(PIT_DIVISOR & 0xFF), %al
        outb    %al, $0x40
        movb    $(PIT_DIVISOR >> 8), %al
        outb    %al, $0x40

        xorl    %edi, %edi                      # the page within the working set
        xorl    %ebx, %ebx                      # what is due, in 1 / PM_TIMER_HZ pages
        movl    $PM_TIMER, %edx
        inl     %dx, %eax
        movl    %eax, %esi                      # the timer when it was last read

wait:   sti
        hlt
        cli
        movl    $PM_TIMER, %edx
        inl     %dx, %eax
        movl    %eax, %ecx
        subl    %esi, %eax
        andl    $0xFFFFFF, %eax
        movl    %ecx, %esi
        cmpl    $MOST_TICKS, %eax
        jbe     paced
        movl    $MOST_TICKS, %eax
paced:  imull   $PAGES_PER_SECOND, %eax, %eax
        addl    %eax, %ebx
write:  cmpl    $PM_TIMER_HZ, %ebx
        jb      wait
        subl    $PM_TIMER_HZ, %ebx
        addl    $STEP, %edi
        cmpl    $PAGES, %edi
        jb      within
        subl    $PAGES, %edi
within: leal    FIRST_PAGE(%edi), %edx
        shll    $12, %edx
        incl    STATUS + 4
        movl    STATUS + 4, %eax                # another word each time
        movl    %eax, (%edx)
        jmp     write

tick:   pushl   %eax
        movb    $0x20, %al
        outb    %al, $0x20
        popl    %eax
        iret

        .align  8
gdt:    .quad   0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
idt_pointer:
        .word   33 * 8 - 1
        .long   idt

        .bss
        .align  16
idt:    .skip   32 * 8
gate:   .skip   8
        .skip   4096
stack:
