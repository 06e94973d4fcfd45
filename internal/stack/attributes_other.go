//go:build !linux

package stack

import "syscall"

// attributes: an own process group.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
