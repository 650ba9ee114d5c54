/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A WARN or BUG: the runner is told its address, and a WARN's code goes on behind it with nothing changed. The kernel's
 * code has no floating point that the runner could spoil.
 */
unsigned long oracle_trap;
asm(".text\n"
    ".globl oracle_ud2\n"
    "oracle_ud2:\n"
    "	pushfq\n"
    "	pushq %rax; pushq %rcx; pushq %rdx; pushq %rsi; pushq %rdi\n"
    "	pushq %r8; pushq %r9; pushq %r10; pushq %r11; pushq %rbx\n"
    "	movq 88(%rsp), %rdi\n"
    "	subq $5, %rdi\n"
    "	movq %rsp, %rbx\n"
    "	andq $-16, %rsp\n"
    "	call *oracle_trap(%rip)\n"
    "	movq %rbx, %rsp\n"
    "	popq %rbx; popq %r11; popq %r10; popq %r9; popq %r8\n"
    "	popq %rdi; popq %rsi; popq %rdx; popq %rcx; popq %rax\n"
    "	popfq\n"
    "	ret\n");
