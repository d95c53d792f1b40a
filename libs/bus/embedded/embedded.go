// Package embedded runs NATS with JetStream inside this process, on loopback only.
//
// It is for the one-binary default, for the simulator and for tests: no cluster, no accounts, no TLS. Whoever needs
// those runs nats-server.
package embedded

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const startTimeout = 20 * time.Second

// Options of Start. Dir is required.
type Options struct {
	Dir      string // where JetStream stores; kept between runs
	Port     int    // 0 picks a free one; -1 is no listener, InProcessConn only
	MaxStore int64  // bytes that JetStream may store; 0 is three quarters of what is free on the disk
}

// Server is a running NATS server.
type Server struct{ s *server.Server }

// Start runs a server and returns when it takes connections.
func Start(o Options) (*Server, error) {
	if o.Dir == "" {
		return nil, errors.New("start embedded nats: no directory to store in")
	}
	port := o.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName:        "warmpath",
		Host:              "127.0.0.1",
		Port:              port,
		DontListen:        o.Port < 0,
		JetStream:         true,
		StoreDir:          o.Dir,
		JetStreamMaxStore: o.MaxStore,
		NoSigs:            true,
		NoLog:             true,
	})
	if err != nil {
		return nil, fmt.Errorf("start embedded nats: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		s.Shutdown()
		return nil, fmt.Errorf("start embedded nats: not ready; is %s writable and port %d free?", o.Dir, o.Port)
	}
	return &Server{s}, nil
}

// URL is what to connect to; of no use without a listener.
func (s *Server) URL() string { return s.s.ClientURL() }

// InProcessConn opens a connection without a socket.
func (s *Server) InProcessConn() (net.Conn, error) { return s.s.InProcessConn() }

// Stop closes all connections, writes what is not yet on disk, and returns when the server is down.
func (s *Server) Stop() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}
