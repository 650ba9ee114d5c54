// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vCPU that no CPU enters: its CS has a type that only data has. With kvm-intel's dump_invalid_vmcs KVM then writes
 * the whole VMCS to the kernel's log, its controls among the rest.
 */
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client.h"

int refused(int kvm)
{
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu;
	struct kvm_sregs sregs;
	struct kvm_run *run;

	if (vm < 0)
		die("KVM_CREATE_VM");
	vcpu = create_vcpu(kvm, vm);
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &sregs))
		die("KVM_GET_SREGS");
	sregs.cs.type = 1;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs))
		die("KVM_SET_SREGS");
	if (ioctl(vcpu, KVM_RUN, 0))
		die("KVM_RUN");
	printf("{\"exit_reason\":%u}\n", run->exit_reason);
	munmap(run, (size_t)size);
	close(vcpu);
	close(vm);
	return 0;
}
