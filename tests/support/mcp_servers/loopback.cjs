// The HTTP server of server-everything listens on every interface; a test's server listens on this machine only.
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...words) {
    const port = Number(typeof words[0] === "object" && words[0] !== null ? words[0].port : words[0]);
    const ready = words.find((word) => typeof word === "function");
    return listen.call(this, { port, host: "127.0.0.1" }, ready);
};
