package top

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/fleet"
)

const patience = 20 * time.Second

// terminal is a real one: what a program writes there is kept, and keys are pressed.
type terminal struct {
	*testing.T
	keys *os.File // the keyboard's end
	tty  *os.File // the program's
	mu   sync.Mutex
	seen strings.Builder
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminals here:", err)
	}
	t.Cleanup(func() { keys.Close() })
	var locked, n int32
	ioctl(t, keys, syscall.TIOCSPTLCK, unsafe.Pointer(&locked))
	ioctl(t, keys, syscall.TIOCGPTN, unsafe.Pointer(&n))
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here:", err)
	}
	t.Cleanup(func() { tty.Close() })
	size := [4]uint16{24, 80}
	ioctl(t, tty, syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	term := &terminal{T: t, keys: keys, tty: tty}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := keys.Read(buf)
			if err != nil {
				return
			}
			term.mu.Lock()
			term.seen.Write(buf[:n])
			term.mu.Unlock()
		}
	}()
	return term
}

func ioctl(t *testing.T, f *os.File, request uintptr, argument unsafe.Pointer) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(argument))
	}); err != nil || errno != 0 {
		t.Skip("no terminals here:", err, errno)
	}
}

// until waits until text was written since the last until. Only cells that change are written.
func (term *terminal) until(text string) {
	term.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		term.mu.Lock()
		seen := escapes.ReplaceAllString(term.seen.String(), "")
		if strings.Contains(seen, text) {
			term.seen.Reset()
			term.mu.Unlock()
			return
		}
		term.mu.Unlock()
		if time.Now().After(end) {
			term.Fatalf("never written: %q; written %q", text, seen)
		}
	}
}

func (term *terminal) press(keys string) {
	if _, err := term.keys.WriteString(keys); err != nil {
		term.Error(err)
	}
}

func TestRunInATerminal(t *testing.T) {
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	conn, err := bus.Connect(t.Context(), server.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Ensure(t.Context(), bus.Sizes{}); err != nil {
		t.Fatal(err)
	}
	for _, model := range []string{"first", "other"} {
		p, err := fleet.EnsurePool(t.Context(), conn, fleet.Pool{ID: fleet.PoolID(model), Model: model, BlockSize: 16})
		if err != nil {
			t.Fatal(err)
		}
		if err := fleet.PutEngine(t.Context(), conn, fleet.Engine{ID: "e-" + model, Name: strings.ToUpper(model), Pool: p.ID, Role: fleet.Both, State: fleet.OK}); err != nil {
			t.Fatal(err)
		}
	}
	term := openTerminal(t)
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	go func() { ended <- Run(ctx, server.URL(), "other", term.tty, term.tty) }()
	term.until("OTHER")
	term.press("\t")
	term.until("FIRST")
	term.press("?")
	term.until("another pool")
	term.press("?")
	term.until("FIRST")
	server.Stop()
	term.until("NATS is away")
	term.press("q")
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("q does not quit")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	term := openTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, "nats://127.0.0.1:1", "", term.tty, term.tty) }()
	term.until("Waiting for nats://127.0.0.1:1")
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}
