"""How far the serving physics is from measured runs of real engines: `trimtab lab calibrate`."""
