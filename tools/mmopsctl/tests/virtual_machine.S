/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a virtual machine of the tests runs, as its firmware. It first stores to each page of its
 * memory the address of the page, but for the first MiB, and then adds 1 to that of random pages of
 * the lower half for ever. After all pages, and after each PASS of those, it tells so by one byte
 * to port 0xe9.
 *
 * SIZE is the size of the memory.
 */
#define PAGE	0x1000
#define FIRST	0x100000
#define PASS	64
#define PORT	0xe9

	.code16
start:
	cli
	lgdtl	%cs:gdt_register - start
	movl	%cr0, %eax
	orb	$1, %al				/* PE */
	movl	%eax, %cr0
	ljmpl	$8, $protected

	.code32
protected:
	movl	$16, %eax
	movl	%eax, %ds
	movl	$FIRST, %edi
fill:
	movl	%edi, (%edi)
	addl	$PAGE, %edi
	cmpl	$SIZE, %edi
	jb	fill
	movl	$1, %ebx			/* state of the generator */
pass:
	outb	%al, $PORT
	movl	$PASS, %ecx
store:
	imull	$1664525, %ebx
	addl	$1013904223, %ebx
	movl	%ebx, %eax
	shrl	$8, %eax
	xorl	%edx, %edx
	movl	$((SIZE / 2 - FIRST) / PAGE), %esi
	divl	%esi
	shll	$12, %edx
	incl	FIRST(%edx)
	decl	%ecx
	jnz	store
	jmp	pass

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff		/* code, then data: 4 GiB from 0 on */
	.quad	0x00cf93000000ffff
gdt_register:
	.word	. - gdt - 1
	.long	gdt

	/* Where a CPU begins. */
	.org	0xfff0
	.code16
	jmp	start
	.org	0x10000
