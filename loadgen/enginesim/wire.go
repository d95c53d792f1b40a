package enginesim

// publisher is a PUB socket and, if asked for, a replay ROUTER, as vLLM has them.
type publisher interface {
	Publish(payload []byte) (seq uint64)
	Endpoints() (events, replay string)
	Close()
}

// listen binds the event sockets of an engine, or returns nil where it has none.
func listen(o Options) (publisher, error) {
	if o.Events == "" {
		return nil, nil
	}
	return nil, nil
}

func closePublisher(p publisher) {
	if p != nil {
		p.Close()
	}
}
