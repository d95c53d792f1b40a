// Package clients holds the running system against OpenAI's official client libraries, Node's and Python's. It is tests
// only: each starts all services in front of simulated engines, some of them faulty, and runs a script that uses the
// library as its readers do. install.sh fetches the libraries.
package clients
