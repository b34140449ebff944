"""A guest for real QEMU: Debian's kernel and one small program, built by the tests.

::

    kernel     linux-image-cloud-amd64 through apt, unpacked and not installed, kept in pytest's cache
    initramfs  counter.S, assembled for one rate, in a cpio archive written by `initramfs.py`

`build` makes both and returns what `qemu-system-x86_64 -kernel ... -initrd ...` takes, and `serial.py` reads what such
a guest printed: "count N" a hundred times a second, which has to go on at the other side without a gap or a repeat, and
"bad" where a page did not hold what the guest had written there. No KVM is needed.
"""
