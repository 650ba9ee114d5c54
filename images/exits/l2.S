/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * L2: a user program that makes system calls, and its kernel. Each is copied to a page of its own.
 *
 * Both live in registers, which system calls keep: R12 system calls to go; R14, RBP to the next fresh data page, one in
 * that many calls, R13 the page; R8, R9 the same for hypercalls; R10, RBX for new code, R15 the page. Nought: never.
 */
#include "layout.h"

	.text
	.code64

	.globl l2_user, l2_user_end
l2_user:
	xor	%edi, %edi
	dec	%r14
	jnz	1f
	mov	%rbp, %r14
	mov	%r12, (%r13)		/* a page of data never touched before */
	mov	%r13, %rdi		/* the kernel reads it */
	add	$STRIDE, %r13
1:	xor	%eax, %eax
	syscall
	dec	%r12
	jnz	l2_user
	mov	$1, %eax		/* that was the last */
	syscall
	jmp	l2_user
l2_user_end:

	.globl l2_kernel, l2_kernel_end
l2_kernel:
	test	%eax, %eax
	jnz	5f
	incq	GLA_KERNEL_DATA + DATA_CALLS
	test	%rdi, %rdi
	jz	1f
	mov	(%rdi), %rdx
	cmp	%rdx, %r12
	jne	6f
1:	dec	%r8
	jnz	3f
	mov	%r9, %r8
	mov	GLA_KERNEL_DATA + DATA_HYPERCALLS, %rdx
2:	mov	$CALL_SERVICE, %eax
	vmcall
	dec	%rdx
	jnz	2b
3:	dec	%r10
	jnz	4f
	mov	%rbx, %r10
	/* new code: MOV its number to EAX, RET. L1 is asked before it is run. */
	mov	%r12d, 1(%r15)
	movb	$0xb8, (%r15)
	movb	$0xc3, 5(%r15)
	mov	$CALL_LOAD, %eax
	mov	%r15, %rdi
	cmpq	$0, GLA_KERNEL_DATA + DATA_SILENT
	jne	1f
	vmcall
1:	call	*%r15
	cmp	%r12d, %eax
	jne	6f
	add	$STRIDE, %r15
4:	sysretq
5:	mov	$CALL_DONE, %eax
	vmcall
	sysretq
6:	mov	$CALL_BROKEN, %eax
	vmcall
	jmp	6b
l2_kernel_end:
