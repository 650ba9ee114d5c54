/* SPDX-License-Identifier: GPL-2.0-only */
/* Into L2 and back, L1's exception entries, and instructions that may fault. */

	.text
	.code64

/*
 * int vm_enter(struct l2_registers *r, int resume)
 * Loads RAX, RDI, RSI, RDX and RCX from *r, clears the rest, enters L2. Returns 0 after a VM exit (*r is L2's then, so that
 * a resumed L2 goes on as it was), 1 when VMLAUNCH/VMRESUME failed with a current VMCS (ZF), 2 without one (CF).
 */
	.globl vm_enter
vm_enter:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdi
	mov	%rsp, saved_rsp
	test	%esi, %esi
	mov	0(%rdi), %rax
	mov	16(%rdi), %rsi
	mov	24(%rdi), %rdx
	mov	32(%rdi), %rcx
	mov	8(%rdi), %rdi
	mov	$0, %ebx
	mov	$0, %ebp
	mov	$0, %r8d
	mov	$0, %r9d
	mov	$0, %r10d
	mov	$0, %r11d
	mov	$0, %r12d
	mov	$0, %r13d
	mov	$0, %r14d
	mov	$0, %r15d
	std				# flags that an exit has to clear
	jnz	1f
	vmlaunch
	jmp	2f
1:	vmresume
2:	cld
	mov	$2, %eax
	jc	3f
	mov	$1, %eax
3:	pop	%rdi
	jmp	4f

	.globl vm_exited
vm_exited:
	mov	%rsp, exit_rsp
	pushfq
	popq	exit_flags
	cld
	mov	saved_rsp, %rsp
	mov	%rdi, l2_rdi
	pop	%rdi
	mov	%rax, 0(%rdi)
	mov	l2_rdi, %rax
	mov	%rax, 8(%rdi)
	mov	%rsi, 16(%rdi)
	mov	%rdx, 24(%rdi)
	mov	%rcx, 32(%rdi)
	xor	%eax, %eax
4:	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/* int rdmsr_safe(uint32_t msr, uint64_t *value): 1 when it faulted */
	.globl rdmsr_safe
rdmsr_safe:
	movq	$5f, fixup
	mov	%edi, %ecx
	rdmsr
	movq	$0, fixup
	shl	$32, %rdx
	mov	%eax, %eax
	or	%rdx, %rax
	mov	%rax, (%rsi)
	xor	%eax, %eax
	ret

/* int wrmsr_safe(uint32_t msr, uint64_t value): 1 when it faulted */
	.globl wrmsr_safe
wrmsr_safe:
	movq	$5f, fixup
	mov	%edi, %ecx
	mov	%esi, %eax
	mov	%rsi, %rdx
	shr	$32, %rdx
	wrmsr
	movq	$0, fixup
	xor	%eax, %eax
	ret
5:	mov	$1, %eax
	ret

/* L1's exceptions: a pending fixup takes them, else they end the probe. */
.macro entry n, error
	.align 16
	.if !\error
	push	$0
	.endif
	push	$\n
	jmp	exception
.endm

	.align 16
	.globl exception_entries
exception_entries:
	.set	i, 0
	.rept	32
	.if	i == 8 || (i >= 10 && i <= 14) || i == 17 || i == 21
	entry	i, 1
	.else
	entry	i, 0
	.endif
	.set	i, i + 1
	.endr

exception:
	cmpq	$0, fixup
	je	6f
	push	%rax
	mov	fixup, %rax
	movq	$0, fixup
	mov	%rax, 24(%rsp)		/* RIP, above RAX, vector and error code */
	pop	%rax
	add	$16, %rsp
	iretq
6:	pop	%rdi
	pop	%rsi
	mov	(%rsp), %rdx
	and	$-16, %rsp
	call	probe_exception
7:	hlt
	jmp	7b

	.bss
	.align 8
saved_rsp:
	.skip 8
l2_rdi:
	.skip 8
	.globl fixup
fixup:
	.skip 8
