#!/usr/bin/env python3
"""A small real SMTP server for tests, on aiosmtpd.

    smtpd.py DIRECTORY [--refuse-recipient ADDR]... [--answer STAGE=REPLY]... [--fail-first N]
                       [--close-on-data [message|command|accepted]] [--login USER:PASSWORD]
                       [--certificate FILE [--require-starttls]]

Listens on a free port of 127.0.0.1 and prints `listening on PORT`. Every message it accepts is in
DIRECTORY as 0001.eml, 0002.eml, ... before the client is told so: the message byte for byte, after
two header lines that hold its envelope, X-MailFrom and X-RcptTo. Runs until it is killed.
"""

import argparse
import asyncio
import os
import pathlib
import ssl

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self, options):
        self.directory = options.directory
        self.refused = {address.lower() for address in options.refuse_recipient}
        self.answers = dict(answer.split("=", 1) for answer in options.answer)
        self.failures = options.fail_first
        self.close_on_data = options.close_on_data
        taken = [int(file.stem) for file in self.directory.glob("*.eml") if file.stem.isdecimal()]
        self.number = max(taken, default=0)

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        if "mail" in self.answers:
            return self.answers["mail"]
        envelope.mail_from = address
        envelope.mail_options.extend(mail_options)
        return "250 2.1.0 OK"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address in self.answers:
            return self.answers[address]
        if address.lower() in self.refused:
            return "550 5.1.1 No such mailbox here"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(rcpt_options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        if "data" in self.answers:
            return self.answers["data"]
        if self.failures > 0:
            self.failures -= 1
            return "451 4.3.0 Try again later"
        if self.close_on_data != "message":
            self.keep(envelope)
        if self.close_on_data:
            await hang_up(server)
        return "250 2.0.0 OK"

    def keep(self, envelope):
        self.number += 1
        name = f"{self.number:04}.eml"
        head = f"X-MailFrom: {envelope.mail_from}\r\nX-RcptTo: {', '.join(envelope.rcpt_tos)}\r\n"
        # Write under another name first, so that a waiting test never reads half a mail.
        unfinished = self.directory / f"{name}.part"
        unfinished.write_bytes(head.encode(errors="surrogateescape") + envelope.original_content)
        os.replace(unfinished, self.directory / name)


class Server(SMTP):
    async def smtp_DATA(self, arg):
        if self.event_handler.close_on_data == "command":
            await hang_up(self)
        await super().smtp_DATA(arg)


async def hang_up(server):
    """Closes the connection without a word. Never returns: the end of the connection cancels it."""
    server.transport.close()
    await asyncio.Event().wait()


async def serve(options):
    options.directory.mkdir(parents=True, exist_ok=True)
    handler = Handler(options)

    def authenticate(server, session, envelope, mechanism, given):
        user, _, password = options.login.partition(":")
        known = (user.encode(), password.encode())
        is_known = (given.login, given.password) == known
        # handled=False: aiosmtpd itself sends the refusal.
        return AuthResult(success=is_known, handled=False, message=handler.answers.get("auth"))

    starttls = {}
    if options.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.certificate)
        starttls = {"tls_context": context, "require_starttls": options.require_starttls}

    def connection():
        sign_in = {}
        if options.login:
            sign_in = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
        return Server(
            handler,
            hostname="localhost",
            ident="test server",
            enable_SMTPUTF8=True,
            **sign_in,
            **starttls,
        )

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description="A small real SMTP server for tests.")
    parser.add_argument("directory", type=pathlib.Path, help="where accepted messages are written")
    parser.add_argument(
        "--refuse-recipient",
        metavar="ADDR",
        action="append",
        default=[],
        help="answer 550 to this recipient; may be given several times",
    )
    parser.add_argument(
        "--answer",
        metavar="STAGE=REPLY",
        action="append",
        default=[],
        help="answer this at a stage, which is auth (to who may not), mail, data, or a recipient's address; "
        "may be given several times",
    )
    parser.add_argument(
        "--fail-first",
        metavar="N",
        type=int,
        default=0,
        help="answer 451 to the first N messages",
    )
    parser.add_argument(
        "--close-on-data",
        nargs="?",
        const="message",
        choices=["message", "command", "accepted"],
        help="hang up without an answer: once it has the message, without keeping it (message, the "
        "default); upon the DATA command, so that it has nothing (command); or once it has the "
        "message and has kept it (accepted)",
    )
    parser.add_argument(
        "--login",
        metavar="USER:PASSWORD",
        help="take mail only from who signs in like this, encrypted or not",
    )
    parser.add_argument(
        "--certificate",
        metavar="FILE",
        help="offer STARTTLS with this certificate, whose key is in the same file",
    )
    parser.add_argument(
        "--require-starttls",
        action="store_true",
        help="take nothing before STARTTLS",
    )
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
