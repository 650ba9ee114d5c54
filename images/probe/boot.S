/* SPDX-License-Identifier: GPL-2.0-only */
/* Multiboot 1 entry in 32-bit protected mode, to 64-bit mode over an identity map of 4 GiB. */

#define MB_MAGIC	0x1BADB002
#define MB_FLAGS	0x00000003	/* modules page-aligned, memory sizes given */

	.section .multiboot, "a"
	.align 4
	.long MB_MAGIC
	.long MB_FLAGS
	.long -(MB_MAGIC + MB_FLAGS)

	.text
	.code32
	.globl start32
start32:
	cli
	cld
	mov	%eax, boot_magic
	mov	%ebx, boot_info

	/* PML4[0] -> PDPT; PDPT[0..3] -> four directories of 2 MiB pages */
	movl	$(boot_pdpt + 3), boot_pml4
	mov	$boot_pdpt, %edi
	mov	$(boot_pd + 3), %eax
	mov	$4, %ecx
1:	mov	%eax, (%edi)
	add	$8, %edi
	add	$0x1000, %eax
	loop	1b
	mov	$boot_pd, %edi
	mov	$0x83, %eax		/* present, writable, large */
	mov	$2048, %ecx
1:	mov	%eax, (%edi)
	add	$8, %edi
	add	$0x200000, %eax
	loop	1b

	mov	%cr4, %eax
	or	$0x20, %eax		/* PAE */
	mov	%eax, %cr4
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	$0xC0000080, %ecx	/* EFER.LME */
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	and	$0x9FFFFFFF, %eax	/* caches on */
	or	$0x80010021, %eax	/* PG, WP, NE, PE */
	mov	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$0x08, $start64

	.code64
start64:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$stack_top, %rsp
	/* the task register must not be null in the VMCS's host state */
	mov	$tss, %rax
	mov	%ax, gdt_tss + 2
	shr	$16, %rax
	mov	%al, gdt_tss + 4
	mov	%ah, gdt_tss + 7
	mov	$0x18, %eax
	ltr	%ax
	mov	boot_magic, %edi
	mov	boot_info, %esi
	call	probe_main
1:	hlt
	jmp	1b

	.data
	.align 16
	.globl gdt
gdt:
	.quad 0
	.quad 0x00AF9B000000FFFF	/* 0x08 64-bit code */
	.quad 0x00CF93000000FFFF	/* 0x10 data */
gdt_tss:
	.quad 0x0000890000000067	/* 0x18 available TSS */
	.quad 0
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt

	.bss
	.align 4096
boot_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pd:
	.skip 4 * 4096
stack_bottom:
	.skip 16384
stack_top:
	.globl tss
tss:
	.skip 128
boot_magic:
	.skip 4
boot_info:
	.skip 4
