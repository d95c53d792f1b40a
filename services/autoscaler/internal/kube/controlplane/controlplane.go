// Package controlplane runs a Kubernetes control plane of one machine for tests: etcd, kube-apiserver,
// kube-controller-manager and kube-scheduler, all of the program that tools/kube builds. There is no kubelet: pods are
// created, scheduled and deleted, and run nowhere. No binary of ours has it.
package controlplane

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

// Required says that tests must not be skipped for want of the program.
func Required() bool { return os.Getenv("WARMPATH_KUBE") == "required" }

// Binary is where `make kube-build` puts the program of this version of tools/kube, or why it is not there.
func Binary() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for {
		if _, err := os.Stat(filepath.Join(folder, "tools/kube/go.mod")); err == nil {
			break
		}
		if folder == filepath.Dir(folder) {
			return "", errors.New("find tools/kube: not in Warmpath's tree")
		}
		folder = filepath.Dir(folder)
	}
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		data, err := os.ReadFile(filepath.Join(folder, "tools/kube", name))
		if err != nil {
			return "", err
		}
		sum.Write(data)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "warmpath", "kube-"+hex.EncodeToString(sum.Sum(nil))[:12], "hyperkube")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no Kubernetes is built, `make kube-build` does (once, 5 to 10 minutes): %w", err)
	}
	return path, nil
}

// Plane is a control plane that runs.
type Plane struct {
	Admin *rest.Config

	binary, dir string
	processes   []*exec.Cmd
}

const adminToken = "admin"

// Start starts a control plane below dir and returns when the API server is ready, in 4 s on an idle machine. Its logs
// are dir/*.log. Stop it, also after an error.
func Start(ctx context.Context, binary, dir string) (*Plane, error) {
	p := &Plane{binary: binary, dir: dir}
	ports, err := freePorts(3)
	if err != nil {
		return p, err
	}
	client, peer, api := ports[0], ports[1], ports[2]
	p.Admin = &rest.Config{
		Host: "https://" + api, BearerToken: adminToken, TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	}
	if err := p.writeFiles(); err != nil {
		return p, err
	}
	etcd := "http://" + client
	err = errors.Join(
		p.run("etcd", "--data-dir="+p.path("etcd"), "--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
			"--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer,
			"--initial-cluster=default=http://"+peer, "--unsafe-no-fsync", "--log-level=warn"),
		p.run("kube-apiserver", "--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--secure-port="+api[strings.IndexByte(api, ':')+1:],
			"--cert-dir="+p.path("certificates"), "--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file="+p.path("sa.key"), "--service-account-signing-key-file="+p.path("sa.key"),
			"--service-cluster-ip-range=10.96.0.0/16", "--token-auth-file="+p.path("tokens.csv"),
			"--authorization-mode=RBAC", "--endpoint-reconciler-type=none"),
	)
	if err == nil {
		err = p.await(ctx)
	}
	if err != nil {
		return p, err
	}
	// Without the controllers of nodes: nodes without a kubelet stay as a test has made them.
	controllers := "deployment-controller,replicaset-controller,statefulset-controller,serviceaccount-controller," +
		"clusterrole-aggregation-controller,garbage-collector-controller"
	return p, errors.Join(
		p.run("kube-controller-manager", "--kubeconfig="+p.path("kubeconfig"), "--controllers="+controllers,
			"--service-account-private-key-file="+p.path("sa.key"), "--bind-address=127.0.0.1", "--secure-port=0", "--leader-elect=false"),
		p.run("kube-scheduler", "--kubeconfig="+p.path("kubeconfig"), "--authentication-kubeconfig="+p.path("kubeconfig"),
			"--authorization-kubeconfig="+p.path("kubeconfig"), "--bind-address=127.0.0.1", "--secure-port=0", "--leader-elect=false"),
	)
}

// Stop kills all that was started and waits for it.
func (p *Plane) Stop() {
	for _, process := range p.processes {
		_ = process.Process.Kill() // it may have ended
	}
	for _, process := range p.processes {
		_ = process.Wait() // it was killed
	}
}

// Kubectl makes a command of the kubectl of the same version, as the admin.
func (p *Plane) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, p.binary, append([]string{"kubectl", "--kubeconfig=" + p.path("kubeconfig")}, args...)...)
}

func (p *Plane) path(name string) string { return filepath.Join(p.dir, name) }

func (p *Plane) run(part string, args ...string) error {
	log, err := os.Create(p.path(part + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	process := exec.Command(p.binary, append([]string{part}, args...)...)
	process.Stdout, process.Stderr, process.Dir = log, log, p.dir
	dieWithUs(process)
	if err := process.Start(); err != nil {
		return fmt.Errorf("start %s: %w", part, err)
	}
	p.processes = append(p.processes, process)
	return nil
}

func (p *Plane) await(ctx context.Context) error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Admin.Host+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+adminToken)
		if response, err := client.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(p.path("kube-apiserver.log"))
			return fmt.Errorf("wait for the API server: %w; its log ends with %s", ctx.Err(), log[max(0, len(log)-2000):])
		case <-tick.C:
		}
	}
}

func (p *Plane) writeFiles() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	kubeconfig := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"test",
"clusters":[{"name":"test","cluster":{"server":%q,"insecure-skip-tls-verify":true}}],
"users":[{"name":"admin","user":{"token":%q}}],
"contexts":[{"name":"test","context":{"cluster":"test","user":"admin"}}]}`, p.Admin.Host, adminToken)
	for name, content := range map[string][]byte{
		"sa.key":     pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		"tokens.csv": []byte(adminToken + ",admin,admin,system:masters\n"),
		"kubeconfig": []byte(kubeconfig),
	} {
		if err := os.WriteFile(p.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// freePorts finds ports of loopback that nobody listens on now.
func freePorts(n int) ([]string, error) {
	var addresses []string
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}
