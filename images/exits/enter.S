/* SPDX-License-Identifier: GPL-2.0-only */
/* Into L2 with all its general registers, and back with what it made of them. */

	.text
	.code64

/*
 * int enter_l2(struct registers *r, int resume)
 * Returns 0 after a VM exit, 1 when VMLAUNCH or VMRESUME failed with a current VMCS (ZF), 2 without one (CF).
 */
	.globl enter_l2
enter_l2:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, l1_rsp
	mov	%rdi, l2_registers
	test	%esi, %esi
	mov	0x00(%rdi), %rax
	mov	0x08(%rdi), %rcx
	mov	0x10(%rdi), %rdx
	mov	0x18(%rdi), %rbx
	mov	0x20(%rdi), %rbp
	mov	0x28(%rdi), %rsi
	mov	0x38(%rdi), %r8
	mov	0x40(%rdi), %r9
	mov	0x48(%rdi), %r10
	mov	0x50(%rdi), %r11
	mov	0x58(%rdi), %r12
	mov	0x60(%rdi), %r13
	mov	0x68(%rdi), %r14
	mov	0x70(%rdi), %r15
	mov	0x30(%rdi), %rdi
	jnz	1f
	vmlaunch
	jmp	2f
1:	vmresume
2:	mov	$2, %eax
	jc	3f
	mov	$1, %eax
3:	jmp	4f

	.globl l2_exited
l2_exited:
	mov	%rdi, l2_rdi
	mov	l2_registers, %rdi
	mov	%rax, 0x00(%rdi)
	mov	%rcx, 0x08(%rdi)
	mov	%rdx, 0x10(%rdi)
	mov	%rbx, 0x18(%rdi)
	mov	%rbp, 0x20(%rdi)
	mov	%rsi, 0x28(%rdi)
	mov	%r8, 0x38(%rdi)
	mov	%r9, 0x40(%rdi)
	mov	%r10, 0x48(%rdi)
	mov	%r11, 0x50(%rdi)
	mov	%r12, 0x58(%rdi)
	mov	%r13, 0x60(%rdi)
	mov	%r14, 0x68(%rdi)
	mov	%r15, 0x70(%rdi)
	mov	l2_rdi, %rax
	mov	%rax, 0x30(%rdi)
	mov	l1_rsp, %rsp
	xor	%eax, %eax
4:	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.bss
	.align 8
l1_rsp:
	.skip 8
l2_registers:
	.skip 8
l2_rdi:
	.skip 8
