package controlplane

import (
	"os/exec"
	"syscall"
)

// dieWithUs has the kernel kill a process when we die, so that a test that is killed leaves nothing behind.
func dieWithUs(process *exec.Cmd) {
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
