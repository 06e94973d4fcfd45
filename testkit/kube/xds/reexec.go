package main

import (
	"os"
	"syscall"
)

// reexec begins anew with the bootstrap in the environment, where grpc looks for it before main.
func reexec(bootstrap string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), "GRPC_XDS_BOOTSTRAP_CONFIG="+bootstrap)) //nolint:gosec // itself
}
