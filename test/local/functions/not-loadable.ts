throw new Error('the settings are wrong');
