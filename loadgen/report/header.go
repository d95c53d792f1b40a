package report

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Header is what every JSON file of ours begins with: what its figures were measured on.
type Header struct {
	Schema  int     `json:"schema"`
	Machine Machine `json:"machine"`
	Commit  string  `json:"commit"` // of the tree that ran, with + where it had changes; empty outside a checkout
	Started string  `json:"started"`
}

// Machine is where a measurement ran.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	MemGB  float64 `json:"mem_gb"`
	Go     string  `json:"go"`
	Kernel string  `json:"kernel"`
}

// NewHeader describes this machine and checkout. What cannot be found out stays empty.
func NewHeader(schema int, started time.Time) Header {
	return Header{Schema: schema, Machine: thisMachine(), Commit: commit(), Started: started.UTC().Format(time.RFC3339)}
}

func thisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.CPU, _ = field("/proc/cpuinfo", "model name")
	if total, ok := field("/proc/meminfo", "MemTotal"); ok {
		kb, _ := strconv.ParseFloat(strings.TrimSuffix(total, " kB"), 64)
		m.MemGB = float64(int(kb/1024/1024*10)) / 10
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// field returns the first value of `name: value` lines in a file.
func field(path, name string) (string, bool) {
	file, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

func commit() string {
	head, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return ""
	}
	dirty, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output()
	if err == nil && len(dirty) > 0 {
		return strings.TrimSpace(string(head)) + "+"
	}
	return strings.TrimSpace(string(head))
}
