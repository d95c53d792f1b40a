package fleet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
)

// meetEvery is the time between two tries of Meet.
const meetEvery = time.Second

// Meet is how a process begins: it makes sure of the streams and buckets, reads the installation's seed unless seed is
// nil, and watches the fleet until ctx ends. While NATS cannot it tries again, says so once, and gives up only with ctx.
func Meet(ctx context.Context, c *bus.Conn, log *slog.Logger, seed *blockkey.Seed) (*Watcher, error) {
	if log == nil {
		log = slog.Default()
	}
	for first := true; ; first = false {
		w, err := meet(ctx, c, log, seed)
		if err == nil {
			return w, nil
		}
		if first && ctx.Err() == nil {
			log.Warn("cannot begin yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(meetEvery):
		}
	}
}

func meet(ctx context.Context, c *bus.Conn, log *slog.Logger, seed *blockkey.Seed) (*Watcher, error) {
	if err := c.Ensure(ctx, bus.Sizes{}); err != nil {
		return nil, err
	}
	if seed != nil {
		var err error
		if *seed, err = Seed(ctx, c); err != nil {
			return nil, err
		}
	}
	return Watch(ctx, c, log)
}

// NewInstance makes a member's name that no other process has, nor this one after a restart: the host's name, of which
// only letters and digits are kept, and 8 random hex digits. It is safe in subjects and keys.
func NewInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(host))
	var random [4]byte
	rand.Read(random[:]) // never fails
	return host + "-" + hex.EncodeToString(random[:])
}

// Reachable is where others reach what listens on an address: there or, where that is every address of this host, the
// one by which NATS knows the host; loopback where NATS cannot say.
func Reachable(listen net.Addr, c *bus.Conn) string {
	tcp, ok := listen.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return listen.String()
	}
	ip, err := c.LocalIP()
	if err != nil {
		ip = net.IPv4(127, 0, 0, 1)
	}
	return (&net.TCPAddr{IP: ip, Port: tcp.Port}).String()
}
