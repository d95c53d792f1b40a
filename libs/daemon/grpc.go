package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
)

// ServeGRPC serves on listener until ctx ends, then waits up to drain for calls in flight before it cuts them off. It
// returns nil after a drain that was asked for.
func ServeGRPC(ctx context.Context, listener net.Listener, server *grpc.Server, drain time.Duration) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		force := time.AfterFunc(drain, server.Stop)
		defer force.Stop()
		server.GracefulStop()
	})
	err := server.Serve(listener)
	if stop() {
		return fmt.Errorf("serve gRPC on %s: %w", listener.Addr(), err)
	}
	<-stopped
	return nil
}

// Listen returns the listener that a service was given or, where it was given none, one on address; an empty address is
// a free port of the loopback interface.
func Listen(given net.Listener, address string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	listener, err := net.Listen("tcp", cmp.Or(address, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return listener, nil
}
