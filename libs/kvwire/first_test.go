package kvwire

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	czmq "github.com/zeromq/goczmq"
)

// atOnce is set in the processes that TestFirstSocketsAtOnce starts.
const atOnce = "KVWIRE_TEST_SOCKETS_AT_ONCE"

// A process opens its first sockets from several goroutines at once, as ingest does for several engines. The C library
// prepares itself at the first one and aborts the process if two are first, so each attempt needs a process of its own.
func TestFirstSocketsAtOnce(t *testing.T) {
	if os.Getenv(atOnce) != "" {
		openAtOnce(t)
		return
	}
	for range 25 {
		child := exec.Command(os.Args[0], "-test.run=^TestFirstSocketsAtOnce$")
		child.Env = append(os.Environ(), atOnce+"=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v: %.400s", err, out)
		}
	}
}

func openAtOnce(t *testing.T) {
	var sockets sync.WaitGroup
	start := make(chan struct{})
	for range 8 {
		sockets.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-start
			s, err := open(czmq.Sub)
			if err != nil {
				t.Error(err)
				return
			}
			s.Destroy()
		})
	}
	close(start)
	sockets.Wait()
}
