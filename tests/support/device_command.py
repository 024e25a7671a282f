"""`gbgw device` alone, as a program: what gbgw.cli mounts, with the same handling of errors."""

import sys

import click

from gbgw.base.errors import ConfigError, GatewayError
from gbgw.device.cli import device

if __name__ == "__main__":
    try:
        device.main()
    except GatewayError as error:
        click.echo(f"gbgw: {error.code}: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
